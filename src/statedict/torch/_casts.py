"""What becomes of elements when a tensor is loaded into another dtype."""

from __future__ import annotations

from collections.abc import Callable

import torch

from statedict.state import DType
from statedict.tree import CastKind

_EXACT_BITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "complex128": 53, "complex64": 24}


def cast_kind(read: Callable[[], torch.Tensor], found: DType, wanted: DType) -> CastKind | None:
    """What casting a tensor from dtype `found` to `wanted` does to its elements; None where these are no numbers.

    `read()` gives the tensor. It is called only where the dtypes leave it open: a smaller range may hold all, or not.
    """
    if found is wanted or not (found.kind in _NUMBERS and wanted.kind in _NUMBERS):
        return None
    if found.is_complex and not wanted.is_complex:
        return "imaginary"
    if (found.is_floating or found.is_complex) and not (wanted.is_floating or wanted.is_complex):
        return "truncation"
    if _holds(wanted, found):
        return "widening"
    if _overflows(read(), getattr(torch, wanted.name)):
        return "overflow"
    return "rounding" if wanted.is_floating or wanted.is_complex else "widening"


def _holds(wanted: DType, found: DType) -> bool:
    """Whether every element of dtype `found` is one of `wanted`."""
    if found.kind == "bool":
        return True
    theirs, ours = getattr(torch, found.name), getattr(torch, wanted.name)
    if found.kind in ("int", "uint"):
        if wanted.kind in ("int", "uint"):
            low, high = torch.iinfo(theirs), torch.iinfo(ours)
            return bool(high.min <= low.min and low.max <= high.max)
        return wanted.kind != "bool" and found.itemsize * 8 <= _EXACT_BITS.get(wanted.name, 0)
    return torch.promote_types(theirs, ours) == ours if _EXACT_BITS.keys() >= {found.name, wanted.name} else False


def _overflows(value: torch.Tensor, wanted: torch.dtype) -> bool:
    """Whether a finite element has no finite neighbour in `wanted` (an integer: not the same element)."""
    if not value.numel():
        return False
    if not (wanted.is_floating_point or wanted.is_complex):
        return bool((value.to(wanted).to(value.dtype) != value).any())
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    wanted = torch.empty(0, dtype=wanted).real.dtype if wanted.is_complex else wanted
    if wanted in _WITH_INFINITY:
        return int(value.to(wanted).isinf().sum()) > int(value.isinf().sum())
    # The others saturate or give NaN.
    return bool((value.isfinite() & (value.abs() > torch.finfo(wanted).max)).any())


_WITH_INFINITY = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_NUMBERS = ("float", "complex", "int", "uint", "bool")
