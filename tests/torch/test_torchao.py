"""Round trips of the tensor classes of torchao and quanto, where they are installed. No table of them is in the library."""

from __future__ import annotations

import warnings

import pytest
import safetensors.torch
import torch
from torch import nn

import statedict
from statedict.errors import LoadError
from statedict.torch import install

pytestmark = pytest.mark.filterwarnings("ignore")


def weight(seed, dtype=torch.float32, rows=64, columns=128):
    torch.manual_seed(seed)
    return torch.randn(rows, columns).to(dtype)


def quantised(config, dtype=torch.float32):
    """A function of a seed that quantises a random weight by the config of this name in torchao."""

    def make(seed):
        ao = torchao()
        made = nn.Sequential(nn.Linear(128, 64, bias=False, dtype=dtype))
        made[0].weight = nn.Parameter(weight(seed, dtype))
        ao.quantization.quantize_(made, config(ao))
        return made[0].weight

    return make


def torchao():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchao
        import torchao.prototype.mx_formats
        import torchao.quantization
        import torchao.sparsity.sparse_api

        return torchao


def bits(seed, shape, dtype):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


def int4(kind, *, scale=(4, 64), packed=(64, 64), zero=True, dtype=torch.int8):
    def make(seed):
        classes = torchao().quantization
        parts = [bits(seed, packed, dtype), weight(seed, torch.bfloat16, *scale)]
        parts += [weight(seed + 1, torch.bfloat16, *scale)] if zero else []
        return getattr(classes, kind)(*parts, [1, 32], torch.Size([64, 128]))

    return make


def nf4(seed):
    torchao()
    from torchao.quantization.quantize_.workflows.nf4.nf4_tensor import to_nf4

    return to_nf4(weight(seed, torch.bfloat16, 256, 256))


def fp4(seed):
    torchao()
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    return MXTensor.to_mx(weight(seed, torch.bfloat16), torch.float4_e2m1fn_x2, 32)


def gguf(seed):
    torchao()
    from torchao.prototype.quantization.gguf.gguf_quantized_tensor import GGUFQuantizedTensor

    return GGUFQuantizedTensor.from_float(weight(seed, rows=16, columns=256), 8, torch.uint4)


def optimizer_state(module, name):
    def make(seed):
        torchao()
        found = __import__(f"torchao.optim.{module}", fromlist=[name])
        made = getattr(found, name).zeros((64, 128))
        for part in made.__tensor_flatten__()[0]:
            getattr(made, part).copy_(bits(seed, getattr(made, part).shape, torch.float32))
        return made

    return make


def uintx(seed):
    torchao()
    from torchao.prototype.dtypes.uintx.uintx_utils import UintxTensor

    return UintxTensor.from_uint8(bits(seed, (32, 64), torch.uint8) % 8, torch.uint3)


# Classes that torchao has not added to PyTorch's safe globals are data for `load`, and only there.
NOT_ALLOWED = {"BlockSparseTensor", "UintxTensor"}
CLASSES = {
    "Int8Tensor": quantised(lambda ao: ao.quantization.Int8WeightOnlyConfig()),
    "Int8Tensor, dynamic": quantised(lambda ao: ao.quantization.Int8DynamicActivationInt8WeightConfig()),
    "Float8Tensor": quantised(lambda ao: ao.quantization.Float8WeightOnlyConfig()),
    "IntxUnpackedToInt8Tensor": quantised(lambda ao: ao.quantization.IntxWeightOnlyConfig()),
    "IntxUnpackedToInt8Tensor, dynamic": quantised(lambda ao: ao.quantization.Int8DynamicActivationIntxWeightConfig()),
    "MXTensor": quantised(lambda ao: ao.prototype.mx_formats.MXDynamicActivationMXWeightConfig(), torch.bfloat16),
    "NVFP4Tensor": quantised(lambda ao: ao.prototype.mx_formats.NVFP4WeightOnlyConfig()),
    "BlockSparseTensor": quantised(lambda ao: ao.sparsity.sparse_api.BlockSparseWeightConfig()),
    "Int4Tensor": int4("Int4Tensor"),
    "Int4PlainInt32Tensor": int4("Int4PlainInt32Tensor", packed=(64, 16), dtype=torch.int32),
    "Int4PreshuffledTensor": int4("Int4PreshuffledTensor", zero=False),
    "Int4TilePackedTo4dTensor": int4(
        "Int4TilePackedTo4dTensor", packed=(8, 2, 32, 4), dtype=torch.int32, zero=False, scale=(4, 128)
    ),
    "NF4Tensor": nf4,
    "MXTensor, fp4": fp4,
    "GGUFQuantizedTensor": gguf,
    "UintxTensor": uintx,
    "OptimState8bit": optimizer_state("subclass_8bit", "OptimState8bit"),
    "OptimState4bit": optimizer_state("subclass_4bit", "OptimState4bit"),
    "OptimStateFp8": optimizer_state("subclass_fp8", "OptimStateFp8"),
}


def quanto(bits):
    def make(seed):
        library = pytest.importorskip("optimum.quanto")
        made = nn.Sequential(nn.Linear(128, 64, bias=False))
        made[0].weight.data = weight(seed)
        library.quantize(made, weights=getattr(library, f"qint{bits}"))
        library.freeze(made)
        return made[0].weight

    return make


QUANTO = {"WeightQBitsTensor": quanto(4), "WeightQBytesTensor": quanto(8)}


@pytest.fixture(params=[*CLASSES, *QUANTO])
def kind(request):
    if request.param in CLASSES:
        pytest.importorskip("torchao")
    return request.param


def module(tensor):
    made = nn.Module()
    made.weight = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
    return made


def raw(tensor):
    """The bytes of each part."""
    found = {}
    for name in tensor.__tensor_flatten__()[0]:
        part = getattr(tensor, name).detach()
        is_wrapper = hasattr(part, "__tensor_flatten__")
        found[name] = raw(part) if is_wrapper else part.contiguous().reshape(-1).view(torch.uint8).tolist()
    return found


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_round_trip(kind, suffix, tmp_path):
    """Save, load into a model, load by assignment, load without a model, and compare: bit for bit the same parts."""
    make = {**CLASSES, **QUANTO}[kind]
    made, path = module(make(0)), tmp_path / f"x.{suffix}"
    expected = raw(made.weight)
    statedict.save(made, path)
    for assign in (False, True):
        other = module(make(5))
        assert raw(other.weight) != expected
        statedict.load_state_dict(other, path, assign=assign)
        assert type(other.weight) is type(made.weight)
        assert raw(other.weight) == expected
        assert not statedict.diff(other, made)
    found = statedict.load(path)["weight"]
    if kind in NOT_ALLOWED or kind in QUANTO:
        assert found.layout == "wrapper"
        assert found.nbytes == statedict.state_dict(made).nbytes
    else:
        assert type(found) is type(made.weight)
        assert raw(found) == expected
    assert raw(statedict.snapshot(made)["weight"]) == expected


@pytest.mark.parametrize("kind", sorted(CLASSES.keys() - NOT_ALLOWED))
def test_torch_loads_the_same(kind, tmp_path):
    """Files of torch.save load here, and ours load there with weights_only."""
    pytest.importorskip("torchao")
    made = module(CLASSES[kind](0))
    torch.save(made.state_dict(), tmp_path / "stock.pt")
    statedict.save(made, tmp_path / "ours.pt")
    assert raw(torch.load(tmp_path / "ours.pt")["weight"]) == raw(made.weight)
    other = module(CLASSES[kind](5))
    statedict.load_state_dict(other, tmp_path / "stock.pt")
    assert raw(other.weight) == raw(made.weight)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_quantised_file_and_a_plain_model(suffix, tmp_path):
    """A quantised checkpoint into a plain model is refused in words; with `assign=True` the model becomes quantised."""
    pytest.importorskip("torchao")
    made, path = module(CLASSES["Int8Tensor"](0)), tmp_path / f"x.{suffix}"
    statedict.save(made, path)
    with torch.device("meta"):
        plain = module(nn.Parameter(torch.zeros(64, 128)))
    statedict.load_state_dict(plain, path, assign=True)
    assert raw(plain.weight) == raw(made.weight)
    plain = module(nn.Parameter(torch.zeros(64, 128)))
    with pytest.raises(LoadError, match=r"the checkpoint a torchao\.quantization\.Int8Tensor, made of the parts qdata"):
        statedict.load_state_dict(plain, path)


@pytest.mark.parametrize("name", ["AdamW8bit", "AdamW4bit"])
def test_optimizers_with_quantised_states(name, tmp_path):
    """Training continues as if it had not stopped, with the 8-bit and 4-bit optimizers of torchao."""
    optim = pytest.importorskip("torchao.optim")

    def made(seed):
        torch.manual_seed(seed)
        model = nn.Linear(128, 64)
        return model, getattr(optim, name)(model.parameters())

    def train(model, optimizer):
        model(torch.ones(2, 128)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = made(0)
    train(model, optimizer)
    with statedict.CheckpointManager(tmp_path) as manager:
        manager.save(1, model=model, optimizer=optimizer)
        again, resumed = made(1)
        manager.resume(model=again, optimizer=resumed)
    train(model, optimizer)
    train(again, resumed)
    assert torch.equal(model.weight, again.weight)


FLATTENED = [name for name in CLASSES if name.partition(",")[0] in (
    "Float8Tensor", "Int4PlainInt32Tensor", "Int4Tensor", "Int4TilePackedTo4dTensor", "Int8Tensor",
    "IntxUnpackedToInt8Tensor", "MXTensor", "NVFP4Tensor",
)]  # fmt: skip


@pytest.mark.parametrize("name", FLATTENED)
def test_a_file_that_torchao_flattened(name, tmp_path):
    """Loads into a model that is quantised in the same way, and not into another."""
    support = pytest.importorskip("torchao.prototype.safetensors.safetensors_support")
    models = [nn.Sequential(nn.Linear(128, 64, bias=False)) for _ in range(3)]
    for seed, model in enumerate(models[:2]):
        model[0].weight = nn.Parameter(CLASSES[name](seed), requires_grad=False)
    tensors, metadata = support.flatten_tensor_state_dict({"0.weight": models[1][0].weight.data})
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata)
    for assign in (False, True):
        statedict.load_state_dict(models[0], tmp_path / "a.safetensors", assign=assign)
        torch.testing.assert_close(raw(models[0][0].weight), raw(models[1][0].weight), rtol=0, atol=0)
    with pytest.raises(LoadError, match=f"the checkpoint a torchao.{name.partition(',')[0]}, made of the parts"):
        statedict.load_state_dict(models[2], tmp_path / "a.safetensors")


def test_a_model_that_transformers_quantised(tmp_path):
    """Saved as the same files, and loaded from them, with this engine under PyTorch's names and without."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchao")
    quantise = transformers.TorchAoConfig(torchao().quantization.Int8WeightOnlyConfig())
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    plain = transformers.LlamaConfig(**sizes, num_key_value_heads=1, vocab_size=64)
    transformers.LlamaForCausalLM(plain).save_pretrained(tmp_path / "plain")

    def loaded(folder, **options):
        return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / folder, device_map="cpu", **options)

    def parts(model):
        return {n: raw(t) if hasattr(t, "__tensor_flatten__") else t for n, t in model.state_dict().items()}

    stock = loaded("plain", quantization_config=quantise)
    stock.save_pretrained(tmp_path / "stock")
    with install():
        ours = loaded("plain", quantization_config=quantise)
        ours.save_pretrained(tmp_path / "ours")
        states = [parts(ours), parts(loaded("ours")), parts(loaded("stock"))]
    expected = parts(stock)
    assert set(expected["model.layers.0.mlp.up_proj.weight"]) == {"qdata", "scale", "zero_point"}
    for state in [*states, parts(loaded("ours"))]:
        torch.testing.assert_close(state, expected, rtol=0, atol=0)
    files = [safetensors.torch.load_file(tmp_path / each / "model.safetensors") for each in ("ours", "stock")]
    torch.testing.assert_close(*files, rtol=0, atol=0)
