"""Loads into another dtype, for every pair that PyTorch copies: its elements, or a refusal with a reason."""

import itertools
import re

import pytest
import torch
from torch import nn

import statedict
from statedict.state import DTYPES, cast_kind
from statedict.torch.tensors._dtypes import DTYPES_OF_TORCH, TORCH_DTYPES
from statedict.torch.tensors._extent import extent

NUMBERS = [d for d in DTYPES.values() if d.kind in ("float", "complex", "int", "uint", "bool")]
FLOATS = [d for d in NUMBERS if d.is_floating]
NOT_IN_SAFETENSORS = ("complex128", "complex32", "float8_e4m3fnuz", "float8_e5m2fnuz")
LOSSY = ("truncation", "imaginary", "overflow")
pytestmark = [
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
    pytest.mark.filterwarnings("ignore:Casting complex values to real"),
]


def model(buffers):
    """A module with these buffers."""
    made = nn.Module()
    for name, buffer in buffers.items():
        made.register_buffer(name, buffer)
    return made


def examples(dtype):
    """Elements that every dtype has, others that few have, and one that is not an integer."""
    numbers = {"plain": [0, 1, 1, 0], "large": [1, 100, 0, 1], "signed": [1, -1, 0, 1], "fine": [0.5, 1, 0, 1]}
    values = {name: torch.tensor(some, dtype=torch.float64) for name, some in numbers.items()}
    values["huge"] = torch.tensor([1e30, -1e5, torch.inf, torch.nan], dtype=torch.float64)
    wide = {n: v.to(torch.complex128) if dtype.is_complex else v for n, v in values.items()}
    return {name: torch.zeros(4, dtype=TORCH_DTYPES[dtype]).copy_(value) for name, value in wide.items()}


def bits(tensor):
    return tensor.contiguous().view(torch.uint8).tolist()


def kinds_of(given, wanted):
    dtypes = {name: DTYPES_OF_TORCH[value.dtype] for name, value in given.items()}
    return {name: cast_kind(dtypes[name], wanted, lambda value=value: extent(value)) for name, value in given.items()}


def empty(given, wanted):
    return model({name: torch.zeros(4, dtype=TORCH_DTYPES[wanted]) for name in given})


@pytest.mark.parametrize("suffix", [None, ".pt"])
@pytest.mark.parametrize("found", NUMBERS, ids=str)
def test_what_a_cast_would_lose_is_refused_by_name(found, suffix, tmp_path):
    """Each lossy cast of a load, from memory or from a file, is in the error; nothing is written."""
    given = examples(found)
    for wanted in set(NUMBERS) - {found}:
        kinds = kinds_of(given, wanted)
        lost = {name: value for name, value in given.items() if kinds[name] in LOSSY}
        if lost:
            target = empty(lost, wanted)
            source = lost if suffix is None else tmp_path / f"state{suffix}"
            if suffix is not None:
                statedict.save(lost, source)
            with pytest.raises(statedict.LoadError) as error:
                statedict.load_state_dict(target, source)
            for name in lost:
                assert re.search(rf'"{name}": casting .*\({kinds[name]}\)', "\n".join(error.value.report.errors))
            untouched = bits(torch.zeros(4, dtype=TORCH_DTYPES[wanted]))
            assert all(bits(buffer) == untouched for buffer in target.buffers())


@pytest.mark.parametrize("suffix", [None, ".pt", ".safetensors"])
@pytest.mark.parametrize("found", NUMBERS, ids=str)
def test_every_pair_gives_pytorchs_elements(found, suffix, tmp_path):
    """From memory and from files, each cast has its kind in the report, and the elements of `copy_`."""
    if suffix == ".safetensors" and found.name in NOT_IN_SAFETENSORS:
        pytest.skip("safetensors does not have this dtype")
    given = examples(found)
    source = given if suffix is None else tmp_path / f"state{suffix}"
    if suffix is not None:
        statedict.save(given, source)
    for wanted in set(NUMBERS) - {found}:
        target = empty(given, wanted)
        report = statedict.load_state_dict(target, source, allow_casts=LOSSY)
        assert {cast.name: cast.kind for cast in report.cast} == kinds_of(given, wanted)
        for name, value in given.items():
            # C does not say what integers NaN and what is out of range become.
            if name != "huge" or wanted.is_floating or wanted.is_complex:
                stock = torch.zeros(4, dtype=TORCH_DTYPES[wanted]).copy_(value)
                assert bits(target.get_buffer(name)) == bits(stock), (name, wanted)


@pytest.mark.parametrize(("found", "wanted"), list(itertools.permutations(FLOATS, 2)), ids=str)
def test_a_dtype_that_is_asked_for_gives_pytorchs_elements(found, wanted):
    """`dtype=` and `StateDict.to` round, saturate and overflow as `Tensor.to` does."""
    given = examples(found)
    expected = {name: bits(value.to(TORCH_DTYPES[wanted])) for name, value in given.items() if name != "huge"}
    made = statedict.StateDict({name: given[name] for name in expected}).to(wanted).torch()
    assert {name: bits(value) for name, value in made.items()} == expected
    target = model({name: torch.zeros(4, dtype=TORCH_DTYPES[wanted]) for name in expected})
    statedict.load_state_dict(target, {name: given[name] for name in expected}, dtype=wanted.name)
    assert {name: bits(value) for name, value in target.named_buffers()} == expected


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
def test_quantised_parameters_are_loaded_as_pytorch_does():
    """What PyTorch quantises on copying is loaded, and reported; what it refuses is refused in its words."""
    quantised = torch.quantize_per_tensor(torch.zeros(3), 0.5, 0, torch.qint8)
    target = model({"x": quantised.clone()})
    report = statedict.load_state_dict(target, {"x": torch.tensor([1.0, 2.2, -3.0])})
    assert [tuple(cast) for cast in report.cast] == [("x", "float32", "qint8", "rounding")]
    assert target.x.dequantize().tolist() == [1.0, 2.0, -3.0]
    with pytest.raises(statedict.LoadError, match="only works with kFloat as source"):
        statedict.load_state_dict(target, {"x": torch.ones(3, dtype=torch.float64)})


def test_a_cast_to_what_holds_no_numbers_is_refused():
    """Quantised dtypes and bits cannot be asked for."""
    with pytest.raises(ValueError, match="cannot cast float32 to qint8: qint8 is not a numeric dtype"):
        statedict.StateDict({"x": torch.ones(2)}).to("qint8")


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="PyTorch 2.7 does not have this dtype")
@pytest.mark.parametrize("source", ["memory", "file"])
@pytest.mark.parametrize("wanted", NUMBERS, ids=str)
def test_what_pytorch_cannot_cast_is_refused(tmp_path, wanted, source):
    """Pairs of 4-bit elements cannot be cast: the error names the tensor, and nothing is written."""
    state = {"x": torch.zeros(1, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
    statedict.save(state, tmp_path / "a.pt")
    made = model({"x": torch.ones(1).to(TORCH_DTYPES[wanted])})
    before = bits(made.x)
    with pytest.raises(statedict.LoadError, match=r'parameter named "x".* not implemented for .*Float4_e2m1fn_x2'):
        statedict.load_state_dict(made, state if source == "memory" else tmp_path / "a.pt")
    assert bits(made.x) == before
