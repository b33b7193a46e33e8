"""Folders of models of transformers and diffusers: written here and opened there, and the other way round."""

import pytest

import statedict

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("environment")]
NAMES = ["model.safetensors", "pytorch_model.bin"]
SIZES = [None, 6000]


def small(kind, config, **sizes):
    return lambda: getattr(transformers, kind)(getattr(transformers, config)(**sizes))


LLAMA = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
BERT = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
BART = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 16,
}  # fmt: skip
MODELS = {
    "llama": small("LlamaForCausalLM", "LlamaConfig", **LLAMA),
    "llama, tied": small("LlamaForCausalLM", "LlamaConfig", **LLAMA, tie_word_embeddings=True),
    "gpt2, tied": small("GPT2LMHeadModel", "GPT2Config", vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=16),
    "bert, tied with a bias": small("BertForMaskedLM", "BertConfig", **BERT),
    "t5, four names": small(
        "T5ForConditionalGeneration", "T5Config", vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2
    ),
    "bart, tied": small("BartForConditionalGeneration", "BartConfig", **BART),
}


@pytest.fixture(params=MODELS)
def model(request):
    """A tiny random model."""
    torch.manual_seed(0)
    return MODELS[request.param]()


def same(one, other):
    """Whether two models have the same state."""
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_from_pretrained_reads_what_we_write(tmp_path, model, name, size, dtype):
    """`from_pretrained` finds every tensor in the files that `save` writes beside the model's configuration."""
    model.to(dtype).config.save_pretrained(tmp_path)
    statedict.save(model, tmp_path / name, max_shard_size=size)
    assert (tmp_path / f"{name}.index.json").exists() == (size is not None)
    other, info = type(model).from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert same(other, model)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_we_read_what_save_pretrained_writes(tmp_path, model, size, dtype):
    """A folder of `save_pretrained` loads into a model, strictly, and each tie is found again."""
    model.to(dtype).save_pretrained(tmp_path, **({} if size is None else {"max_shard_size": size}))
    torch.manual_seed(1)
    other = type(model)(model.config).to(dtype)
    assert not same(other, model)
    statedict.load_state_dict(other, tmp_path)
    assert same(other, model)


@pytest.mark.parametrize("name", NAMES)
def test_ties_come_back(tmp_path, model, name):
    """What is tied in the model is tied in the state that we read from our own files, whole or in shards."""
    for size in SIZES:
        (tmp_path / str(size)).mkdir()
        statedict.save(model, tmp_path / str(size) / name, max_shard_size=size)
        with statedict.open(tmp_path / str(size)) as checkpoint:
            state = checkpoint.state_dict()
            assert sorted(map(sorted, state.tied)) == sorted(map(sorted, statedict.state_dict(model).tied))
            assert state.keys() == model.state_dict().keys()
            assert not checkpoint.verify()


def test_load_model_of_safetensors_reads_what_we_write(tmp_path, model):
    """`safetensors.torch.load_model` is strict about names, and reads our files of tied models."""
    from safetensors.torch import load_model

    statedict.save(model, tmp_path / "model.safetensors")
    torch.manual_seed(1)
    other = type(model)(model.config)
    assert load_model(other, tmp_path / "model.safetensors") == (set(), [])
    assert same(other, model)


@pytest.mark.parametrize("name", NAMES)
def test_the_other_files_of_a_model_stay(tmp_path, name):
    """Saving into a folder that `save_pretrained` wrote replaces the weights, and leaves its other files as they are."""
    torch.manual_seed(0)
    model = MODELS["llama, tied"]()
    model.save_pretrained(tmp_path, max_shard_size=6000)
    (tmp_path / "tokenizer.json").write_text("{}")
    kept = {"config.json", "generation_config.json", "tokenizer.json"}
    before = {file: (tmp_path / file).read_bytes() for file in kept}
    if name.endswith(".bin"):  # transformers prefers safetensors
        for file in tmp_path.glob("*.safetensors*"):
            file.unlink()
    with torch.no_grad():
        model.lm_head.weight += 1
    for size in (4000, 6000, "1GB"):
        statedict.save(model, tmp_path / name, max_shard_size=size)
        assert {file: (tmp_path / file).read_bytes() for file in kept} == before
        assert same(type(model).from_pretrained(tmp_path), model)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, name])


@pytest.mark.parametrize("size", SIZES)
def test_diffusers(tmp_path, size):
    """A model of diffusers is exchanged in both directions, under the name that it expects."""
    diffusers = pytest.importorskip("diffusers")
    sizes = {"sample_size": 8, "block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**sizes, **blocks)
    model.save_config(tmp_path / "ours")
    statedict.save(model, tmp_path / "ours" / "diffusion_pytorch_model.safetensors", max_shard_size=size)
    assert same(diffusers.UNet2DModel.from_pretrained(tmp_path / "ours"), model)
    statedict.save(model, tmp_path / "ours" / "diffusion_pytorch_model.safetensors", max_shard_size=size)
    assert same(diffusers.UNet2DModel.from_pretrained(tmp_path / "ours"), model)
    model.save_pretrained(tmp_path / "theirs", **({} if size is None else {"max_shard_size": size}))
    torch.manual_seed(1)
    other = diffusers.UNet2DModel(**sizes, **blocks)
    statedict.load_state_dict(other, tmp_path / "theirs")
    assert same(other, model)
