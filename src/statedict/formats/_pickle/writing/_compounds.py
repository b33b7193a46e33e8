"""Write tensors with several parts, and PyTorch's constants, as torch's pickles do: counterpart of
`reading._compounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import pack
from typing import Any

from statedict.state import Compound, DType, contiguous_strides, dtype

from .._names import PACKED
from .._values import Kind, Size, TorchConstant, TypedStorage
from ._memo import PickleWriter, get, integer
from ._tensors import bare_storage, hooks, reduce, storage, strided, tuple_end


def compound_function(value: Compound) -> str:
    """Return the name of the function in `torch._utils` that rebuilds it."""
    return _KINDS[value.layout][0]


def compound_arguments(w: PickleWriter, value: Compound, requires_grad: bool) -> None:
    """Write its arguments as one tuple."""
    _KINDS[value.layout][1](w, value, requires_grad)


def compound(w: PickleWriter, value: Compound, requires_grad: bool) -> int:
    """Write the tensor without attributes or subclass; return its slot."""
    w.reference("torch._utils", compound_function(value))
    compound_arguments(w, value, requires_grad)
    return reduce(w)


def _layout(w: PickleWriter, name: str) -> None:
    slot = w.named.get(("layout", name))
    if slot is not None:
        w.out.extend(get(slot))
        return
    w.reference("torch.serialization", "_get_layout")
    w.fresh_text(f"torch.{name}")
    tuple_end(w, b"\x85")
    w.named["layout", name] = reduce(w)


def size(w: PickleWriter, shape: tuple[int, ...]) -> None:
    """Write a torch.Size, without a memo slot."""
    w.reference("torch", "Size")
    w.integers(shape)
    tuple_end(w, b"\x85")
    w.out.extend(b"R")


def _sparse(w: PickleWriter, value: Compound, requires_grad: bool) -> None:
    _layout(w, value.layout)
    w.out.extend(b"(")
    is_coo = value.layout == "sparse_coo"
    for role in ("indices", "values") if is_coo else ("compressed_indices", "plain_indices", "values"):
        strided(w, value.parts[role], False)
    size(w, value.shape)
    w.put()
    coalesced = value.facts.get("coalesced")
    if coalesced is not None:  # files before torch 2.0 do not have it
        w.flag(bool(coalesced))
    tuple_end(w, b"t")
    tuple_end(w, b"\x86")


def _nested(w: PickleWriter, value: Compound, requires_grad: bool) -> None:
    w.out.extend(b"(")
    for role in ("values", "sizes", "strides", "offsets"):
        strided(w, value.parts[role], False)
    tuple_end(w, b"t")


def _meta(w: PickleWriter, value: Compound, requires_grad: bool) -> None:
    w.out.extend(b"(")
    w.reference("torch", value.dtype.name)
    w.integers(value.shape)
    strides: Any = value.facts["strides"]
    w.integers(strides)
    w.flag(requires_grad)
    tuple_end(w, b"t")


def _quantized(w: PickleWriter, value: Compound, requires_grad: bool) -> None:
    facts: Mapping[str, Any] = value.facts
    place = w.store(value.parts["values"])
    w.out.extend(b"(")
    storage(w, value.dtype, place)
    w.out.extend(integer(place.spec.offset))
    w.integers(value.shape)
    w.integers(contiguous_strides(value.shape) if value.dtype.name in PACKED else place.spec.strides)
    if facts["scheme"] == "per_tensor_affine":
        w.reference("torch", "per_tensor_affine")
        w.out.extend(b"G" + pack(">d", facts["scale"]) + integer(facts["zero_point"]))
        tuple_end(w, b"\x87")
    else:
        # PyTorch writes this name for both per-channel schemes; the dtype of the zero points distinguishes them.
        w.out.extend(b"(")
        w.reference("torch", "per_channel_affine")
        strided(w, value.parts["scales"], False)
        strided(w, value.parts["zero_points"], False)
        w.out.extend(integer(facts["axis"]))
        tuple_end(w, b"t")
    w.flag(requires_grad)
    hooks(w)
    tuple_end(w, b"t")


def constant(w: PickleWriter, value: TorchConstant) -> None:
    """Write a device, layout, qscheme or memory format."""
    if value.kind == "layout":
        _layout(w, value.name)
    elif value.kind == "device":
        if w.again(value):
            return
        kind, _, index = value.name.partition(":")
        w.reference("torch", "device")
        w.fresh_text(kind)
        w.out.extend(integer(int(index)) if index else b"")
        tuple_end(w, b"\x86" if index else b"\x85")
        w.out.extend(b"R")
        w.memoize(value)
    else:
        w.reference("torch", value.name)


_KINDS: dict[str, tuple[str, Callable[[PickleWriter, Compound, bool], None]]] = {
    **dict.fromkeys(
        ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"), ("_rebuild_sparse_tensor", _sparse)
    ),
    "nested": ("_rebuild_nested_tensor", _nested),
    "meta": ("_rebuild_meta_tensor_no_storage", _meta),
    "quantized": ("_rebuild_qtensor", _quantized),
}


def _size(w: PickleWriter, value: Size) -> None:
    size(w, value)
    w.memoize(value)


# Values that do not contain others, but are not atoms either.
CONSTANTS: dict[type, Callable[[PickleWriter, Any], object]] = {
    Size: _size,
    DType: lambda w, value: w.reference("torch", value.name),
    TorchConstant: constant,
    TypedStorage: bare_storage,
}


def _torch_constant(kind: Kind) -> Callable[[Any], TorchConstant]:
    return lambda value: TorchConstant(kind, str(value).removeprefix("torch."))


# PyTorch's constants, by the names of their types: each is one object, and is written as its inert counterpart.
INERT: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("torch", "dtype"): lambda value: dtype(str(value)),
    ("torch", "layout"): _torch_constant("layout"),
    ("torch", "qscheme"): _torch_constant("qscheme"),
    ("torch", "memory_format"): _torch_constant("memory_format"),
}
