"""What becomes of elements when they are loaded into another dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from statedict.state import DType
from statedict.tree import CastKind

# Bits of the significand: integers of at most so many bits are kept.
_SIGNIFICAND = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "complex128": 53, "complex64": 24}
# (significand, exponent) bits of what floats are made of: one holds another if it has as many of both.
_FLOATS = {"float64": (53, 11), "float32": (24, 8), "float16": (11, 5), "bfloat16": (8, 8)}
_HALVES = {"complex128": "float64", "complex64": "float32"}
_NUMBERS = ("float", "complex", "int", "uint", "bool")


def cast_kind(elements: Callable[[], Any], found: DType, wanted: DType) -> CastKind | None:
    """What casting from `found` to `wanted` does; None where nothing, or these are no numbers.

    `elements()` gives them as a NumPy array; it is called only where the dtypes leave it open.
    """
    if found is wanted or found.kind not in _NUMBERS or wanted.kind not in _NUMBERS:
        return None
    if found.is_complex and not wanted.is_complex:
        return "imaginary"
    if (found.is_floating or found.is_complex) and not (wanted.is_floating or wanted.is_complex):
        return "truncation"
    if _holds(wanted, found):
        return "widening"
    if _overflows(elements(), wanted):
        return "overflow"
    return "rounding" if wanted.is_floating or wanted.is_complex else "widening"


def _holds(wanted: DType, found: DType) -> bool:
    """Whether every element of dtype `found` is one of `wanted`."""
    if found.kind == "bool":
        return True
    if found.kind in ("int", "uint"):
        if wanted.kind in ("int", "uint"):
            low, high = np.iinfo(found.name), np.iinfo(wanted.name)
            return bool(high.min <= low.min and low.max <= high.max)
        return wanted.kind != "bool" and found.itemsize * 8 <= _SIGNIFICAND.get(wanted.name, 0)
    theirs, ours = (_FLOATS.get(_HALVES.get(d.name, d.name)) for d in (found, wanted))
    return theirs is not None and ours is not None and theirs[0] <= ours[0] and theirs[1] <= ours[1]


def _overflows(array: Any, wanted: DType) -> bool:
    """Whether a finite element has no finite neighbour in `wanted` (an integer: not the same element)."""
    with np.errstate(all="ignore"):
        cast = array.astype(wanted.numpy)
        if wanted.is_floating or wanted.is_complex:
            return bool((np.isfinite(array) & ~np.isfinite(cast)).any())
        return bool((cast.astype(array.dtype) != array).any())
