"""Convert sparse, quantised and nested tensors to Compounds, and back.

Tensors from a file are validated (PyTorch's sparse invariants, sizes of nested tensors): an index outside the shape would
read outside the tensor's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from statedict.errors import FormatError
from statedict.state import Compound, Leaf, Traits, contiguous

from ._dtypes import DTYPES_OF_TORCH, PACKED, TORCH_DTYPES
from ._memory import storage_of

LeafOf = Callable[[torch.Tensor], Leaf]
_COLUMN_MAJOR = ("sparse_csc", "sparse_bsc")


def compound_of(tensor: torch.Tensor, traits: Traits, leaf: LeafOf) -> Compound | None:
    """The Compound of a tensor that is not strided; None if its class gives no access to its elements."""
    plain = tensor.detach()
    if tensor.is_nested:
        layout = "nested"
    elif tensor.is_quantized:
        layout = "quantized"
    else:
        layout = str(tensor.layout).removeprefix("torch.")
    take = _TAKE.get(layout)
    if take is None:
        return None
    parts, facts = take(plain)
    shape = _nested_shape(parts["sizes"]) if layout == "nested" else tuple(tensor.shape)
    leaves = {role: part if isinstance(part, Leaf) else leaf(part) for role, part in parts.items()}
    return Compound(layout, DTYPES_OF_TORCH[tensor.dtype], shape, leaves, facts, traits)


def make_compound(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    """Make a tensor from a Compound's parts; raises FormatError if they do not fit together."""
    try:
        return _MAKE[value.layout](value, parts)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"the parts of a {value.layout} tensor do not fit together: {error}") from error


Parts = tuple[dict[str, Any], dict[str, object]]


def _take_coo(tensor: torch.Tensor) -> Parts:
    return {"indices": tensor._indices(), "values": tensor._values()}, {"coalesced": tensor.is_coalesced()}


def _make_coo(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        parts["indices"],
        parts["values"],
        value.shape,
        device=parts["values"].device,
        is_coalesced=bool(value.facts.get("coalesced")) or None,
        check_invariants=True,
    )


def _take_compressed(tensor: torch.Tensor) -> Parts:
    by_column = str(tensor.layout).removeprefix("torch.") in _COLUMN_MAJOR
    compressed = tensor.ccol_indices() if by_column else tensor.crow_indices()
    plain = tensor.row_indices() if by_column else tensor.col_indices()
    return {"compressed_indices": compressed, "plain_indices": plain, "values": tensor.values()}, {}


def _make_compressed(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    return torch.sparse_compressed_tensor(
        parts["compressed_indices"],
        parts["plain_indices"],
        parts["values"],
        value.shape,
        layout=getattr(torch, value.layout),
        device=parts["values"].device,
        check_invariants=True,
    )


def _take_quantized(tensor: torch.Tensor) -> Parts:
    dtype = DTYPES_OF_TORCH[tensor.dtype]
    scheme = str(tensor.qscheme()).removeprefix("torch.")
    values: Any = tensor
    if dtype.name in PACKED:
        storage = storage_of(tensor)
        values = Leaf(contiguous(dtype, (storage.nbytes,)), storage)
    if scheme == "per_tensor_affine":
        return {"values": values}, {"scheme": scheme, "scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
    scales, zero_points = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    facts: dict[str, object] = {"scheme": scheme, "axis": tensor.q_per_channel_axis()}
    return {"values": values, "scales": scales, "zero_points": zero_points}, facts


def _make_quantized(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    values, dtype = parts["values"], TORCH_DTYPES[value.dtype]
    facts: dict[str, Any] = value.facts
    if str(facts["scheme"]).removeprefix("torch.") == "per_tensor_affine":
        scale, zero_point = float(facts["scale"]), int(facts["zero_point"])
        made = torch._empty_affine_quantized(value.shape, scale=scale, zero_point=zero_point, dtype=dtype)
    else:
        scales, zeros = parts["scales"], parts["zero_points"]
        made = torch._empty_per_channel_affine_quantized(
            value.shape, scales=scales, zero_points=zeros, axis=int(facts["axis"]), dtype=dtype
        )
    strides = made.stride() if value.dtype.name in PACKED else values.stride()
    return made.set_(values.untyped_storage(), values.storage_offset(), value.shape, strides)


def _take_nested(tensor: torch.Tensor) -> Parts:
    parts = {
        "values": tensor.values(),
        "sizes": tensor._nested_tensor_size(),
        "strides": tensor._nested_tensor_strides(),
        "offsets": tensor._nested_tensor_storage_offsets(),
    }
    return parts, {}


def _nested_shape(sizes: torch.Tensor) -> tuple[int, ...]:
    """The number of tensors, and -1 for each of their dimensions, as in a file."""
    return len(sizes), *(-1 for _ in range(sizes.shape[1] if sizes.dim() > 1 else 0))


def _make_nested(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    sizes, strides, offsets = parts["sizes"], parts["strides"], parts["offsets"]
    if sizes.numel():
        ends = offsets + ((sizes - 1) * strides).sum(dim=1) + 1
        beyond = (ends > parts["values"].numel()) & (sizes > 0).all(dim=1)
        if beyond.any() or min(sizes.min(), strides.min(), offsets.min()) < 0:
            raise ValueError("its sizes reach beyond its values")
    return torch._nested_view_from_buffer(parts["values"], sizes, strides, offsets)


def _make_meta(value: Compound, parts: dict[str, Any]) -> torch.Tensor:
    facts: dict[str, Any] = value.facts
    return torch.empty_strided(value.shape, facts["strides"], dtype=TORCH_DTYPES[value.dtype], device="meta")


_TAKE: dict[str, Callable[[torch.Tensor], Parts]] = {
    "sparse_coo": _take_coo,
    "sparse_csr": _take_compressed,
    "sparse_csc": _take_compressed,
    "sparse_bsr": _take_compressed,
    "sparse_bsc": _take_compressed,
    "quantized": _take_quantized,
    "nested": _take_nested,
}
_MAKE: dict[str, Callable[[Compound, dict[str, Any]], torch.Tensor]] = {
    "sparse_coo": _make_coo,
    "sparse_csr": _make_compressed,
    "sparse_csc": _make_compressed,
    "sparse_bsr": _make_compressed,
    "sparse_bsc": _make_compressed,
    "quantized": _make_quantized,
    "nested": _make_nested,
    "meta": _make_meta,
}
