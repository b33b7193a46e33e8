"""Tensors of odd shapes, strides and dtypes through every verb that reads elements: PyTorch's results are right."""

import io

import numpy as np
import pytest
import torch

import statedict
from statedict.report._survey import measure
from statedict.state import leaf_of

BASE = torch.arange(24.0).reshape(4, 6)
ODD = {
    "a 0-dim float": torch.tensor(1.5),
    "a 0-dim bfloat16": torch.tensor(2.5, dtype=torch.bfloat16),
    "a 0-dim view": BASE[2, 3],
    "a 0-dim integer": torch.tensor(7),
    "empty": torch.empty(0, 3),
    "strided": BASE[::2, ::3],
    "transposed": BASE.t(),
    "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
    "expanded of 0-dim": torch.tensor(3.0).expand(2, 2),
    "negative": torch.view_as_complex(torch.arange(8.0).reshape(4, 2)).conj().imag,
    "conjugate": torch.view_as_complex(torch.arange(8.0).reshape(4, 2)).conj(),
    "a 0-dim conjugate": torch.tensor(1 + 2j).conj(),
    "channels last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    "bfloat16": torch.arange(5.0).to(torch.bfloat16),
    "float16, strided": torch.arange(6.0).half()[::2],
    "float8": torch.tensor([0.5, 2.0]).to(torch.float8_e4m3fn),
    "complex64": torch.tensor([1 + 2j, 3.0]),
    "bool": torch.tensor([True, False, True])[::2],
    **{f"uint{n}": torch.tensor([1, 200]).to(getattr(torch, f"uint{n}")) for n in (16, 32, 64)},
}
KINDS = pytest.mark.parametrize("kind", list(ODD))
FORMATS = ["torch", "safetensors", "npz"]


def bits(tensor):
    """What the elements are, whatever they lie like."""
    plain = tensor.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    return tensor.dtype, tuple(tensor.shape), plain.reshape(-1).view(torch.uint8).tolist()


def again(state, format):
    file = io.BytesIO()
    statedict.save(state, file, format=format)
    file.seek(0)
    return statedict.open(file).state_dict()


@pytest.fixture(params=["live", "in a file"])
def state(request, kind):
    """The tensor in memory, and as PyTorch saves it: strided, and tied to bytes that it does not show."""
    tensors = {"w": ODD[kind]}
    if request.param == "live":
        return statedict.StateDict(tensors)
    file = io.BytesIO()
    torch.save(tensors, file)
    file.seek(0)
    return statedict.open(file).state_dict()


@KINDS
@pytest.mark.parametrize("format", FORMATS)
def test_saved_in_each_format(state, kind, format):
    """What is saved and opened again has the same dtype, shape and elements."""
    assert bits(again(state, format).torch()["w"]) == bits(ODD[kind])


@KINDS
@pytest.mark.parametrize("target", ["float64", "bfloat16"])
@pytest.mark.parametrize("format", FORMATS)
def test_cast_when_saved(state, kind, format, target):
    """`to` casts floating-point tensors as PyTorch does, and leaves others."""
    tensor = ODD[kind]
    wanted = tensor.to(getattr(torch, target)) if tensor.is_floating_point() else tensor
    assert bits(again(state.to(target), format).torch()["w"]) == bits(wanted)
    assert bits(state.to(target).torch()["w"]) == bits(wanted)


@KINDS
def test_read_as_arrays(state, kind):
    """NumPy and PyTorch get the shape that the tensor has."""
    assert bits(state.torch()["w"]) == bits(ODD[kind])
    assert np.shape(state.numpy()["w"]) == tuple(ODD[kind].shape)
    assert bits(statedict.StateDict(statedict.snapshot(state)).torch()["w"]) == bits(ODD[kind])


@KINDS
def test_compared_and_digested(state, kind):
    """A tensor does not differ from its saved self, and both have one fingerprint."""
    saved = again(state, "torch")
    assert state.fingerprint() == saved.fingerprint()
    assert not list(statedict.diff(saved, again(saved, "npz")).changed)


@KINDS
def test_merged_and_measured(state, kind):
    """The average of a tensor with itself is itself, of its shape; statistics look at every element."""
    tensor = ODD[kind]
    if tensor.is_floating_point() and tensor.dtype is not torch.float8_e4m3fn:
        merged = statedict.merge([state, again(state, "torch")])
        assert bits(again(merged, "safetensors").torch()["w"]) == bits(tensor)
    measure(leaf_of(state.leaf("w")), 12)


@KINDS
def test_loaded_into_a_model(state, kind):
    """The elements arrive in a tensor of the same shape, laid out otherwise."""
    model = torch.nn.Module()
    model.register_buffer("w", torch.zeros(ODD[kind].shape, dtype=ODD[kind].dtype))
    statedict.load_state_dict(model, state)
    assert bits(model.w) == bits(ODD[kind])
