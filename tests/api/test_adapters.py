"""Adapters of PEFT: loaded into its models, merged into their base without a model, and extracted. PEFT is the oracle."""

import json

import ml_dtypes
import numpy as np
import pytest

import statedict
from statedict.errors import LoadError, MergeError

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("environment")]

CONFIG = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]}
KINDS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"layers.0.self_attn.q_proj": 2, "v_proj": 3},
        "alpha_pattern": {r".*\.1\.self_attn\.[qv]_proj": 5},
    },
    "every bias": {"bias": "all"},
    "bias of LoRA": {"bias": "lora_only", "target_modules": ["q_proj", "down_proj"]},
    "bias in LoRA": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "o_proj"]},
    "saved modules": {"modules_to_save": ["lm_head", "norm"]},
}


def llama(dtype=torch.float32, **more):
    """A tiny model with biases; the same each time."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, mlp_bias=True, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).to(dtype)


def adapted(model, seed=1, **config):
    """A PEFT model whose adapter, and everything that is saved with it, is random."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(model, peft.LoraConfig(**CONFIG | config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
    return model


def same(one, other):
    """Whether two modules have the same state."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", [*KINDS, "DoRA"])
def test_the_folder_of_an_adapter_loads_in_one_line(tmp_path, kind):
    """A folder that PEFT wrote fills the adapter of another PEFT model, and nothing else of it."""
    config = KINDS.get(kind, {"use_dora": True})
    saved = adapted(llama(), **config)
    saved.save_pretrained(tmp_path)
    model = adapted(llama(), seed=2, **config)
    assert not same(model, saved)
    report = statedict.load_state_dict(model, tmp_path)
    assert same(model, saved)
    assert not report.missing_keys
    assert {name for name in report.excluded if "lora_" in name} == set()


@pytest.mark.parametrize("method", ["IA3Config", "LoHaConfig", "LoKrConfig", "OFTConfig", "BOFTConfig"])
def test_other_methods_load_as_well(tmp_path, method):
    """The files of PEFT's other methods are paired in the same way."""
    extra = {"feedforward_modules": []} if method == "IA3Config" else {}
    extra |= {"r": 0, "oft_block_size": 4} if method == "OFTConfig" else {}
    models = []
    for seed in (1, 2):
        models.append(peft.get_peft_model(llama(), getattr(peft, method)(target_modules=["q_proj"], **extra)))
        torch.manual_seed(seed)
        for parameter in models[-1].parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
    models[0].save_pretrained(tmp_path)
    assert not same(*models)
    statedict.load_state_dict(models[1], tmp_path)
    assert same(*models)


def test_parts_and_wholes_of_peft_models(tmp_path):
    """The file of an adapter loads into the transformer inside a PeftModel, and into a module that has a PeftModel."""
    saved = adapted(llama())
    saved.save_pretrained(tmp_path)
    inside, around = adapted(llama(), seed=2), adapted(llama(), seed=3)
    statedict.load_state_dict(inside.base_model.model.model, tmp_path)
    statedict.load_state_dict(torch.nn.Sequential(torch.nn.Linear(2, 2), around), tmp_path)
    assert same(inside, saved)
    assert same(around, saved)


def test_one_of_two_adapters_is_chosen(tmp_path):
    """Two adapters in the model are ambiguous; `include` chooses one, and the other stays as it is."""
    saved = adapted(llama())
    saved.save_pretrained(tmp_path)
    model = adapted(llama(), seed=2)
    model.add_adapter("second", peft.LoraConfig(**CONFIG))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(LoadError, match="may belong to") as caught:
        statedict.load_state_dict(model, tmp_path)
    assert "'base_model.model.*.second'" in str(caught.value) or "second" in str(caught.value)
    statedict.load_state_dict(model, tmp_path, include="*.second.*")
    theirs = saved.state_dict()
    for name, value in model.state_dict().items():
        expected = theirs[name.replace("second", "default")] if "second" in name else before[name]
        assert torch.equal(value, expected), name


def test_an_incomplete_adapter_is_refused(tmp_path):
    """A tensor of the adapter that its file lacks is missing, and one that the model lacks is unexpected."""
    adapted(llama()).save_pretrained(tmp_path)
    model = adapted(llama(), seed=2, target_modules=["q_proj", "v_proj", "o_proj"])
    with pytest.raises(LoadError, match="o_proj"):
        statedict.load_state_dict(model, tmp_path)
    with pytest.raises(LoadError, match="v_proj"):
        statedict.load_state_dict(adapted(llama(), seed=2, target_modules=["q_proj"]), tmp_path)


def merged_by_peft(model, folder, **options):
    return peft.PeftModel.from_pretrained(model, folder, **options).merge_and_unload().state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_what_peft_does(tmp_path, kind, dtype):
    """`merge_and_unload` of the loaded adapter gives the same weights: 2 ulp apart at most, nearly all to the bit.

    The matrices are multiplied by another library, which may add up the products in another order.
    """
    adapted(llama(), **KINDS[kind]).save_pretrained(tmp_path / "adapter")
    llama(dtype).save_pretrained(tmp_path / "base")
    merged = statedict.merge([tmp_path / "base", tmp_path / "adapter"], "lora")
    expected = merged_by_peft(llama(dtype), tmp_path / "adapter")
    assert merged.keys() == expected.keys()
    assert_equal_within(merged.torch(), expected, 2)
    statedict.load_state_dict(llama(dtype), merged)


def assert_equal_within(found, expected, ulps, share=0.99):
    """Assert that tensors have the same dtypes, are mostly equal to the bit, and the rest within so many units in the last
    place of the element, or of the mean magnitude of the tensor if that is larger."""
    equal, total = 0, 0
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        a, b = (each.double() for each in (found[name], value))
        unit = torch.finfo(value.dtype).eps * b.abs().clamp(min=b.abs().mean())
        assert ((a - b).abs() <= ulps * unit).all(), name
        equal, total = equal + int((a == b).sum()), total + a.numel()
    assert equal >= share * total


def test_convolutions_and_square_conv1d(tmp_path):
    """Convolutions (1×1 and larger), and GPT-2's transposed weights, square ones too."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.three = torch.nn.Conv2d(4, 6, 1), torch.nn.Conv2d(6, 5, 3)
            self.line = torch.nn.Conv1d(3, 4, 2)

    torch.manual_seed(0)
    net = Net()
    statedict.save(net, tmp_path / "net.safetensors")
    config = {"target_modules": ["one", "three", "line"], "r": 2}
    adapted(net, **config).save_pretrained(tmp_path / "conv")
    merged = statedict.merge([tmp_path / "net.safetensors", tmp_path / "conv"], "lora").torch()
    torch.manual_seed(0)
    assert_equal_within(merged, merged_by_peft(Net(), tmp_path / "conv"), 4, share=0.5)

    torch.manual_seed(0)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    gpt2 = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    gpt2.save_pretrained(tmp_path / "gpt2")
    adapted(gpt2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True).save_pretrained(tmp_path / "lora")
    merged = statedict.merge([tmp_path / "gpt2", tmp_path / "lora"], "lora").torch()
    expected = merged_by_peft(transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2"), tmp_path / "lora")
    assert_equal_within(merged, {name: expected[name] for name in merged}, 8, share=0.9)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config | {"fan_in_fan_out": False}))
    with pytest.raises(MergeError, match="is square, and fan_in_fan_out=False contradicts the shapes"):
        statedict.merge([tmp_path / "gpt2", tmp_path / "lora"], "lora")


@pytest.mark.parametrize(
    ("base", "adapter", "message"),
    [
        ({"k.weight": np.ones((4, 6))}, {}, "is for another base: it changes base_model.model.q.weight"),
        ({"q._weight_qdata": np.ones((4, 6), "int8")}, {}, "This base was quantised by torchao"),
        ({"q.weight": np.ones((4, 6), "int8")}, {}, "dtype int8: a quantised base cannot be changed"),
        ({"q.weight": np.ones((4, 6), ml_dtypes.float8_e4m3fn)}, {}, "dtype float8_e4m3fn: a quantised base"),
        ({}, {"A": np.ones((2, 6), "int32")}, "A of 'base_model.model.q' has the dtype int32, not a float"),
        ({}, {"B": np.ones((4, 2), "complex64")}, "B of 'base_model.model.q' has the dtype complex64, not a float"),
        ({}, {"A": np.array(1, "float32")}, r"have the shapes \[\] and \[4, 2\], which is not a pair"),
        ({}, {"A": np.ones(0, "float32")}, r"have the shapes \[0\] and \[4, 2\], which is not a pair"),
    ],
)
def test_hostile_tensors_are_refused(base, adapter, message):
    """A base without the module, or with quantised weights, and matrices of other dtypes or shapes are refused before
    anything is computed."""
    matrices = {"A": np.ones((2, 6), "float32"), "B": np.ones((4, 2), "float32"), **adapter}
    state = statedict.state.StateDict(
        {f"base_model.model.q.lora_{role}.weight": each for role, each in matrices.items()}
    )
    state.texts = {"adapter_config": json.dumps({"peft_type": "LORA", "r": 2})}
    with pytest.raises(MergeError, match=message):
        statedict.merge([base or {"q.weight": np.ones((4, 6), "float32")}, state], "lora")


def test_tied_and_several(tmp_path):
    """A tied embedding stays tied and is changed once; a second adapter is added to the result of the first."""
    tied = llama(tie_word_embeddings=True)
    adapted(tied, target_modules=["embed_tokens", "q_proj"]).save_pretrained(tmp_path / "a")
    adapted(llama(tie_word_embeddings=True), seed=5).save_pretrained(tmp_path / "b")
    base = statedict.state_dict(llama(tie_word_embeddings=True))
    merged = statedict.merge([base, tmp_path / "a", tmp_path / "b"], "lora", weights=[1, 0.5])
    assert merged.tied == base.tied == [("model.embed_tokens.weight", "lm_head.weight")]
    model = peft.PeftModel.from_pretrained(llama(tie_word_embeddings=True), tmp_path / "a")
    model = peft.PeftModel.from_pretrained(model.merge_and_unload(), tmp_path / "b")
    for layer in model.modules():
        if isinstance(layer, peft.tuners.lora.LoraLayer):
            layer.scaling["default"] *= 0.5
    assert_equal_within(merged.torch(), model.merge_and_unload().state_dict(), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "is a DoRA"),
        ({"peft_type": "LOHA"}, "of the kind 'LOHA': only 'LORA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base weights"),
        ({"trainable_token_indices": [1]}, "uses 'trainable_token_indices', which is not supported"),
        ({"layer_replication": [[0, 1]], "use_qalora": True}, "uses 'layer_replication', 'use_qalora'"),
        ({"r": 0}, "has the rank 0"),
        ({"r": None}, "has the rank None: expected a positive integer"),
        ({"r": 8}, r"not a pair of rank 8"),
        ({"lora_alpha": 1e308}, r"has the alpha 1e\+308: expected a finite number"),
        ({"alpha_pattern": {"q": "2"}}, "has the alpha '2'"),
        (
            {"rank_pattern": {"(?i)q": 2}},
            r"the pattern '\(\?i\)q' in adapter_config.json is not understood here: global",
        ),
        ({"alpha_pattern": {f".*{n}": 2 for n in range(17)}}, r"more than 16 patterns with \* or \+"),
        ({"rank_pattern": {"(a+)+$": 2}}, r"the pattern '\(a\+\)\+\$' in adapter_config.json is not understood"),
        ({"alpha_pattern": {"[": 2}}, r"the pattern '\[' in"),
        ({"alpha_pattern": [1]}, "adapter_config.json is not valid"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path, change, message):
    """An adapter of another kind, or with an option that changes the weights, is refused before anything is read."""
    adapted(llama()).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(MergeError, match=message):
        statedict.merge([llama(), tmp_path], "lora")


def test_an_adapter_of_another_base_is_refused(tmp_path):
    """Names and shapes that the base does not have are listed; so are unsupported tensors."""
    adapted(llama()).save_pretrained(tmp_path)
    with pytest.raises(MergeError, match=r"is for another base: it changes .*which the base does not have"):
        statedict.merge([torch.nn.Linear(2, 2), tmp_path], "lora")
    wide = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))  # fmt: skip
    with pytest.raises(MergeError, match="do not fit its weight in the base"):
        statedict.merge([wide, tmp_path], "lora")
    with pytest.raises(
        MergeError, match=r"/adapter_model.safetensors has no adapter_config\.json, .*: pass the folder"
    ):
        statedict.merge([llama(), tmp_path / "adapter_model.safetensors"], "lora")
    with pytest.raises(MergeError, match="This base has an adapter itself: convert it with the map peft-base first"):
        statedict.merge([adapted(llama()), tmp_path], "lora")
    state = statedict.load(tmp_path)
    for extra, message in [
        ("q.lora_magnitude_vector", "q.lora_mag"),
        ("q.lora_A.weight", "q"),
    ]:
        adapter = statedict.state.StateDict({**state, extra: torch.ones(2, 2)})
        adapter.texts = {"adapter_config": (tmp_path / "adapter_config.json").read_text()}
        with pytest.raises(MergeError, match=f"unsupported tensors: {message}"):
            statedict.merge([llama(), adapter], "lora")


def test_one_line_about_an_adapter(tmp_path):
    """Opening an adapter says in a note what it is."""
    adapted(llama()).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": "org/base"}))
    with statedict.open(tmp_path) as checkpoint:
        assert checkpoint.notes[-1] == "an adapter of PEFT (LoRA) for org/base, rank 4, alpha 6, on q_proj, v_proj"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_extracted_adapter_is_the_nearest_of_its_rank(tmp_path, prefix):
    """The error of an extracted matrix is that of the truncated SVD; a difference of that rank comes back."""
    base = llama()
    adapted(llama(), bias="all", modules_to_save=["norm"], target_modules=["q_proj", "down_proj"]).save_pretrained(
        tmp_path
    )
    tuned = merged_by_peft(llama(), tmp_path)
    tuned = {f"{prefix}{name}": value for name, value in tuned.items()}
    adapter = statedict.merge([tuned], "extract_lora", base=base, rank=4)
    again = statedict.merge([base, adapter], "lora").torch()
    for name, value in again.items():
        assert torch.allclose(value, tuned[prefix + name], atol=1e-6), name
    half = statedict.merge([tuned], "extract_lora", base=base, rank=2).torch()
    name = "model.layers.0.self_attn.q_proj"
    difference = (tuned[f"{prefix}{name}.weight"] - base.state_dict()[f"{name}.weight"]).double()
    product = half[f"base_model.model.{name}.lora_B.weight"] @ half[f"base_model.model.{name}.lora_A.weight"]
    values = torch.linalg.svdvals(difference)
    assert torch.linalg.norm(difference - product) == pytest.approx(float(values[2:].norm()), rel=1e-4)


def test_peft_loads_what_is_extracted(tmp_path):
    """The extracted file and its configuration are a LoRA for PEFT, which computes what the tuned model does."""
    tuned = llama()
    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if name.endswith(("q_proj.weight", "q_proj.bias", "norm.weight", "embed_tokens.weight", "o_proj.bias")):
                parameter += torch.randn(parameter.shape) * 0.1
    adapter = statedict.merge([tuned], "extract_lora", base=llama(), rank=16)
    statedict.save(adapter, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(adapter.texts["adapter_config"])
    words = torch.arange(10)[None]
    with torch.no_grad():
        model = peft.PeftModel.from_pretrained(llama(), tmp_path)
        assert torch.allclose(model(words).logits, tuned(words).logits, atol=1e-5)
        assert torch.allclose(model.merge_and_unload()(words).logits, tuned(words).logits, atol=1e-5)
    merged = statedict.merge([llama(), tmp_path], "lora").numpy()
    assert all(np.allclose(merged[name], value.detach(), atol=1e-6) for name, value in tuned.state_dict().items())


def test_what_an_adapter_cannot_contain_is_refused():
    """A model without changes, and a change of a parameter that is not in a module, cannot be extracted."""
    with pytest.raises(MergeError, match="does not differ from its base"):
        statedict.merge([llama()], "extract_lora", base=llama(), rank=2)
    base = {"scale": np.ones(2), "a.weight": np.ones((2, 2))}
    with pytest.raises(MergeError, match="a LoRA cannot contain the change of scale"):
        statedict.merge([{**base, "scale": np.zeros(2)}], "extract_lora", base=base, rank=2)
