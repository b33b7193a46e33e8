"""The conversions of transformers as a KeyMap, against `from_pretrained`, with folders that `save_pretrained` wrote."""

from importlib import import_module
from types import SimpleNamespace

import pytest

import statedict
from statedict import maps
from statedict.errors import LoadError, MapError

transformers = pytest.importorskip("transformers", minversion="5")
torch = pytest.importorskip("torch")
loading = pytest.importorskip("transformers.core_model_loading")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("environment")]


SIZES = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZES, "vocab_size": 40, "num_key_value_heads": 2}
EXPERTS = {**TEXT, "num_experts": 12, "num_experts_per_tok": 2}
VISION = {**SIZES, "image_size": 8, "patch_size": 4}


def small(kind, config, **sizes):
    return getattr(transformers, kind)(getattr(transformers, config)(**sizes))


def pali_gemma():
    vision, text = transformers.SiglipVisionConfig(**VISION), transformers.GemmaConfig(**TEXT, head_dim=8)
    return small("PaliGemmaForConditionalGeneration", "PaliGemmaConfig", vision_config=vision, text_config=text)


MODELS = {
    "experts, renamed": lambda: small("MixtralForCausalLM", "MixtralConfig", **TEXT, num_local_experts=12),
    "experts": lambda: small("OlmoeForCausalLM", "OlmoeConfig", **EXPERTS),
    "split": lambda: small("Dinov2Model", "Dinov2Config", **VISION, use_swiglu_ffn=True),
    "parts, tied": pali_gemma,
    "base model": lambda: small("ViTForImageClassification", "ViTConfig", **VISION),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny random model whose names in memory differ from those in its files."""
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_call_that_the_error_names_loads_a_folder(tmp_path, model):
    """A folder of `save_pretrained` is refused with one call, which loads exactly what `from_pretrained` loads."""
    model.save_pretrained(tmp_path)
    torch.manual_seed(1)
    other = type(model)(model.config)
    with pytest.raises(LoadError) as caught:
        statedict.load_state_dict(other, tmp_path)
    (suggestion,) = caught.value.report.suggestions
    assert suggestion.call == "load_state_dict(model, source, rename=statedict.maps.conversion(model))"
    statedict.load_state_dict(other, tmp_path, rename=maps.conversion(other))
    assert same(other, model)
    assert same(other, type(model).from_pretrained(tmp_path))


def test_from_pretrained_reads_the_names_in_memory(tmp_path, model):
    """`from_pretrained` reads what `save` writes of such a model, although the names are not those of its files."""
    model.config.save_pretrained(tmp_path)
    statedict.save(model, tmp_path / "model.safetensors")
    other, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert same(other, model)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_rules_for_a_file_are_a_plain_key_map(tmp_path):
    """The rules for the names of a file can be printed, and do the same."""
    torch.manual_seed(0)
    model = MODELS["experts, renamed"]()
    model.save_pretrained(tmp_path)
    state = statedict.load(tmp_path)
    rules = maps.conversion(model).rules_for(state, statedict.StateDict(state).spec)
    assert "model.layers.0.mlp.experts.down_proj | stack 0" in str(rules)
    renamed = statedict.KeyMap.from_toml(rules.to_toml()).rename(state)
    assert all(torch.equal(renamed[name], value) for name, value in model.state_dict().items())


def conversion(monkeypatch, wanted, *transforms):
    """The map that these rules of transformers make for a model with these shapes."""
    model = transformers.BertModel(transformers.BertConfig(**SIZES, vocab_size=4))  # imports parts of transformers
    table = SimpleNamespace(get_model_conversion_mapping=lambda model: list(transforms))
    monkeypatch.setitem(__import__("sys").modules, "transformers.conversion_mapping", table)
    monkeypatch.setattr(model, "state_dict", lambda: {name: torch.zeros(shape) for name, shape in wanted.items()})
    return maps.conversion(model)


def older(operation, option):
    """An operation of a version that does not have this option."""
    vars(operation).pop(option, None)
    return operation


A, B = torch.arange(6.0).reshape(2, 3), -torch.arange(12.0).reshape(4, 3)
OPERATIONS = {
    "sizes": (["a", "b"], ["c"], [loading.Concatenate(0)], {"a": A, "b": B}, {"c": torch.cat([A, B])}),
    "transposed": (["a"], ["c"], [loading.Transpose(0, 1)], {"a": A}, {"c": A.T}),
    "only if needed": (["a"], ["c"], [loading.Transpose(0, 1, check_dims=True)], {"a": A}, {"c": A}),
    "chunks": (["b"], ["x", "y"], [loading.Chunk(0)], {"b": B}, {"x": B[:2], "y": B[2:]}),
    "chunks, in 5.16": (
        ["b"],
        ["x", "y"],
        [older(loading.Chunk(0), "num_shards_attribute")],
        {"b": B},
        {"x": B[:2], "y": B[2:]},
    ),
    "transposed, in 5.1": (["a"], ["c"], [older(loading.Transpose(0, 1), "check_dims")], {"a": A}, {"c": A.T}),
}
if hasattr(loading, "Split"):
    OPERATIONS["sizes of the model"] = ["b"], ["x", "y"], [loading.Split(0)], {"b": B}, {"x": B[:1], "y": B[1:]}


@pytest.mark.parametrize("case", OPERATIONS)
def test_operations(monkeypatch, case):
    """Each operation gives what transformers' operation of that name gives."""
    sources, targets, operations, given, expected = OPERATIONS[case]
    shapes = {name: value.shape for name, value in expected.items()}
    made = conversion(monkeypatch, shapes, loading.WeightConverter(sources, targets, operations)).rename(given)
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)


def test_what_only_transformers_can_do(monkeypatch):
    """An operation that depends on the model's code is refused in words, with the tensor."""
    made = conversion(monkeypatch, {"c": (2, 3)}, loading.WeightConverter(["a"], ["c"], [loading.PermuteForRope()]))
    with pytest.raises(
        MapError, match=r"transformers converts tensors to 'c' by PermuteForRope; use its from_pretrained"
    ):
        made.rename({"a": A})


def test_an_error_says_what_only_transformers_can_do(monkeypatch, tmp_path):
    """If its conversion needs the model's code, the error of a plain load says so, and does not suggest to load a part."""
    model = MODELS["experts, renamed"]()
    model.save_pretrained(tmp_path)
    names = ["block_sparse_moe.experts.*.w1.weight"], ["mlp.experts.gate_up_proj"]
    change = loading.WeightConverter(*names, [loading.PermuteForRope()])
    table = import_module("transformers.conversion_mapping")
    monkeypatch.setattr(table, "get_model_conversion_mapping", lambda model: [change])
    with pytest.raises(LoadError, match="PermuteForRope; use its from_pretrained") as refused:
        statedict.load_state_dict(model, tmp_path)
    assert refused.value.report.suggestions == []


def test_tensors_that_the_rules_do_not_expect(tmp_path):
    """A load is refused for its own reason, without this suggestion, if an expert is a scalar; with it, by a MapError."""
    model = MODELS["experts"]()
    model.save_pretrained(tmp_path)
    state = statedict.load(tmp_path)
    state |= {name: torch.tensor(1.0) for name in state if name.endswith(("gate_proj.weight", "up_proj.weight"))}
    with pytest.raises(LoadError) as refused:
        statedict.load_state_dict(model, state)
    assert "maps.conversion(model)" not in str(refused.value)
    with pytest.raises(MapError, match="rules of transformers do not apply"):
        statedict.load_state_dict(model, state, rename=maps.conversion(model))


def test_an_expert_that_is_missing(tmp_path):
    """If a file lacks a part of an expert, the experts of this layer are reported under the names that they have."""
    torch.manual_seed(0)
    model = MODELS["experts"]()
    model.save_pretrained(tmp_path)
    state = statedict.load(tmp_path)
    del state["model.layers.0.mlp.experts.3.up_proj.weight"]
    report = statedict.load_state_dict(model, state, rename=maps.conversion(model), dry_run=True)
    assert report.missing == ["model.layers.0.mlp.experts.gate_up_proj"]
    assert len(report.unexpected) == 23
    assert "model.layers.0.mlp.experts.3.gate_proj.weight" in report.unexpected


def test_other_models():
    """Only models of transformers have its conversions."""
    with pytest.raises(TypeError, match="for its own models, not for a Linear"):
        maps.conversion(torch.nn.Linear(2, 2))
