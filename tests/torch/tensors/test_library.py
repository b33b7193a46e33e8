"""torch tensors as leaves, and leaves as torch tensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import FormatError, MissingDependencyError, SaveError
from statedict.state import (
    DTYPES,
    Compound,
    Leaf,
    Read,
    StateDict,
    Storage,
    contiguous,
    dtype,
    leaf_of,
    materialize,
)
from statedict.torch import TORCH
from statedict.torch.tensors import _library

pytestmark = pytest.mark.filterwarnings("ignore:.*(quantized|nested|Sparse).*:UserWarning")

MOVABLE = [
    name for name, row in DTYPES.items() if hasattr(torch, name) and row.kind in ("float", "int", "uint", "bool")
]


def again(value: torch.Tensor) -> Any:
    leaf = leaf_of(value)
    assert leaf is not None
    return materialize([leaf], TORCH)[0]


def raw(value: torch.Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


@given(
    name=st.sampled_from(MOVABLE),
    shape=st.lists(st.integers(0, 3), max_size=3),
    turned=st.booleans(),
    start=st.integers(0, 2),
)
def test_a_strided_tensor_comes_back(name: str, shape: list[int], turned: bool, start: int) -> None:
    """Bytes, dtype, shape and strides, wherever it lies in its storage."""
    whole = (
        torch.arange(240, dtype=torch.uint8).view(getattr(torch, name)) if name != "bool" else torch.ones(200).bool()
    )
    count = int(np.prod(shape))
    value = whole[start : start + count].view(shape)
    value = value.transpose(0, -1) if turned and shape else value
    found = again(value)
    assert (found.dtype, found.shape, found.stride()) == (value.dtype, value.shape, value.stride())
    assert raw(found) == raw(value)


@pytest.mark.parametrize(
    "value",
    [
        torch.randn(4, 4, dtype=torch.complex64).conj(),
        torch.randn(4, dtype=torch.complex64).conj().imag,
        torch.nn.Parameter(torch.randn(3), requires_grad=False),
        torch.nn.Parameter(torch.randn(3)),
        torch.randn(3, requires_grad=True),
        torch.nn.Buffer(torch.randn(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_tensor_was_comes_back(value: torch.Tensor) -> None:
    """Lazy bits, `requires_grad`, and whether it is a Parameter."""
    found = again(value)
    assert (found.is_conj(), found.is_neg(), found.requires_grad) == (
        value.is_conj(),
        value.is_neg(),
        value.requires_grad,
    )
    assert isinstance(found, torch.nn.Parameter) == isinstance(value, torch.nn.Parameter)
    assert raw(found.resolve_conj().resolve_neg()) == raw(value.resolve_conj().resolve_neg())


SPARSE = {
    "coo": lambda: torch.eye(3).to_sparse(),
    "uncoalesced": lambda: torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (2,), check_invariants=True),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "csc": lambda: torch.eye(4).to_sparse_csc(),
    "bsr": lambda: torch.eye(4).to_sparse_bsr((2, 2)),
    "bsc": lambda: torch.eye(4).to_sparse_bsc((2, 2)),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_tensor_comes_back(kind: str) -> None:
    """Layout, elements, and whether it is coalesced."""
    value = SPARSE[kind]()
    found = again(value)
    assert found.layout is value.layout
    assert torch.equal(found.to_dense(), value.to_dense())
    if value.layout is torch.sparse_coo:
        assert found.is_coalesced() == value.is_coalesced()


def quantized() -> list[torch.Tensor]:
    scales = torch.tensor([0.1, 0.2, 0.3])
    return [
        torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.quint8),
        torch.quantize_per_tensor(torch.randn(3, 4), 0.1, 3, torch.qint32).t(),
        torch.quantize_per_channel(torch.randn(3, 4), scales, torch.zeros(3, dtype=torch.int64), 0, torch.qint8),
        torch.quantize_per_channel(torch.randn(3, 4), scales, torch.zeros(3), 0, torch.quint4x2),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_quantized_tensor_comes_back(number: int) -> None:
    """Scheme, scales, zero points and integers."""
    value = quantized()[number]
    found = again(value)
    assert (found.dtype, found.qscheme(), found.shape) == (value.dtype, value.qscheme(), value.shape)
    assert torch.equal(found.dequantize(), value.dequantize())


def test_a_nested_tensor_comes_back() -> None:
    """A nested tensor comes back with its components in order."""
    value = torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(4, 3)])
    assert [torch.equal(a, b) for a, b in zip(value.unbind(), again(value).unbind())] == [True, True]


def test_a_meta_tensor_is_made_on_meta() -> None:
    """A tensor that never had elements comes out of a file with its dtype, shape and strides, and none."""
    value = Compound("meta", dtype("float16"), (2, 3), {}, {"strides": (1, 2)})
    [found] = materialize([value], TORCH)
    assert (found.is_meta, found.dtype, found.shape, found.stride()) == (True, torch.float16, (2, 3), (1, 2))


def test_parts_that_do_not_fit_together_are_refused() -> None:
    """Indices and sizes from a file are checked: they would be reads beyond the tensor's memory."""
    sparse = leaf_of(torch.eye(3).to_sparse())
    assert isinstance(sparse, Compound)
    sparse.shape = (1, 1)
    with pytest.raises(FormatError, match="the parts of a sparse_coo tensor do not fit together"):
        materialize([sparse], TORCH)
    nested = leaf_of(torch.nested.nested_tensor([torch.randn(2, 3)]))
    assert isinstance(nested, Compound)
    nested.parts["sizes"] = leaf_of(torch.tensor([[2, 30]]))  # type: ignore[assignment]
    with pytest.raises(FormatError, match="reach beyond its values"):
        materialize([nested], TORCH)


def test_a_leaf_aliases_its_tensor() -> None:
    """A leaf's view is the memory of its tensor, and keeps it alive."""
    value = torch.zeros(4)
    leaf = leaf_of(value)
    assert isinstance(leaf, Leaf)
    view = leaf.storage.source.view(leaf.storage)
    assert view is not None
    value[0] = 1
    del value
    assert np.frombuffer(view, np.float32).tolist() == [1, 0, 0, 0]
    into = bytearray(4)
    leaf.storage.source.read_into([Read(leaf.storage, 0, memoryview(into)), Read(leaf.storage, 0, memoryview(b""))])
    assert into == np.float32(1).tobytes()


def test_ties_are_told_across_libraries() -> None:
    """A tensor, a view of it and a NumPy array over it lie in one storage; empty ones in none."""
    value = torch.arange(6.0)
    state = StateDict({"a": value, "b": value[2:], "c": value.numpy(), "d": torch.empty(0), "e": torch.empty(0)})
    assert state.tied == [("a", "b", "c")]


def test_tensors_of_one_storage_share_memory_again() -> None:
    """Ties stay ties, and each storage is one of its own."""
    value = torch.arange(6.0)
    one, two, other = materialize([leaf_of(value), leaf_of(value[2:]), leaf_of(torch.ones(3))], TORCH)  # type: ignore[list-item]
    one[2] = 9
    assert two[0] == 9
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()
    assert other.untyped_storage().nbytes() == 12


def test_memory_that_may_not_be_written_is_copied() -> None:
    """A tensor over it would be a way to write to it."""
    spec = contiguous(dtype("uint8"), (3,))
    for part in (spec, spec._replace(shape=(2,))):
        (found,) = TORCH.arrays([Leaf(part, Storage(None, "key", 3))], [memoryview(b"abc")])  # type: ignore[arg-type]
        found += 1
        assert found[0].item() == ord("b")


def test_what_has_no_elements_to_show_is_no_leaf() -> None:
    """Lazy parameters and wrappers; a tensor on meta is a leaf that cannot be read."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    assert leaf_of(torch.nn.UninitializedParameter()) is None
    with FakeTensorMode():
        assert leaf_of(torch.randn(3)) is None
    meta = leaf_of(torch.empty(3, device="meta"))
    assert isinstance(meta, Leaf)
    assert (meta.spec.shape, meta.storage.location) == ((3,), "meta")
    with pytest.raises(SaveError, match="a tensor on the meta device has no elements"):
        materialize([meta], TORCH)


def test_the_default_device_does_not_matter() -> None:
    """Tensors are made on the CPU where somebody has set another default."""
    leaves = [leaf_of(torch.arange(6.0)[1:3]), leaf_of(torch.eye(2).to_sparse()), leaf_of(torch.empty(0, 3))]
    with torch.device("meta"):
        found = materialize(leaves, TORCH)  # type: ignore[arg-type]
    assert [value.device.type for value in found] == ["cpu", "cpu", "cpu"]


def test_a_dtype_of_later_versions_needs_another_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of a dtype that the installed PyTorch does not have is an error that says what to install."""
    monkeypatch.delitem(_library.TORCH_DTYPES, dtype("float8_e4m3fn"))
    leaf = leaf_of(np.zeros(2, dtype("float8_e4m3fn").numpy))
    assert isinstance(leaf, Leaf)
    version = re.escape(torch.__version__.partition("+")[0])
    with pytest.raises(
        MissingDependencyError, match=rf"PyTorch {version} does not have.*pip install 'torch>{version}'"
    ):
        materialize([leaf], TORCH)
