"""Classify casts: by the two dtypes, and by the range of the values if the dtypes do not decide it.

All array libraries use this one table. Ranges are compared as exact Python numbers. A cast to the other dtype and back would
not detect integers that wrap around.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from ..tensors._dtype import DType

CastKind = Literal["widening", "rounding", "truncation", "imaginary", "overflow"]


class Cast(NamedTuple):
    """A tensor that was loaded into another dtype. `kind` is the effect on its elements: `"widening"` keeps all of them."""

    name: str
    found: str
    wanted: str
    kind: CastKind


class ValueRange(NamedTuple):
    """The range of some elements (for complex elements, of their parts).

    Attributes:
        low, high: the smallest and the largest finite element; 0 if there is none.
        nan, infinite: whether any element is NaN, or infinite.
    """

    low: float = 0
    high: float = 0
    nan: bool = False
    infinite: bool = False


class _Float(NamedTuple):
    """A binary floating-point format.

    Attributes:
        precision: bits of the significand, the implicit one included.
        least: the exponent of the smallest positive number.
        largest: the largest finite number.
        infinite: whether it has infinities.
        signed: whether it has negative numbers, and zero.
    """

    precision: int
    least: int
    largest: int
    infinite: bool = True
    signed: bool = True


_DOUBLE = _Float(53, -1074, (2**53 - 1) << 971)
_SINGLE = _Float(24, -149, (2**24 - 1) << 104)
_HALF = _Float(11, -24, 65504)
_FLOATS = {
    "float64": _DOUBLE,
    "float32": _SINGLE,
    "float16": _HALF,
    "bfloat16": _Float(8, -133, (2**8 - 1) << 120),
    "float8_e4m3fn": _Float(4, -9, 448, infinite=False),
    "float8_e4m3fnuz": _Float(4, -10, 240, infinite=False),
    "float8_e5m2": _Float(3, -16, 57344),
    "float8_e5m2fnuz": _Float(3, -17, 57344, infinite=False),
    "float8_e8m0fnu": _Float(1, -127, 2**127, infinite=False, signed=False),
    "complex128": _DOUBLE,
    "complex64": _SINGLE,
    "complex32": _HALF,
}
NUMBERS = frozenset({"float", "complex", "int", "uint", "bool"})


def cast_kind(found: DType, wanted: DType, extent: Callable[[], ValueRange] | None = None) -> CastKind | None:
    """Return the effect of a cast from `found` to `wanted`; None if the dtypes are equal or not numeric.

    `"widening"` keeps every element, `"rounding"` rounds to the nearest representable number, `"truncation"` cuts off
    fractions, `"imaginary"` drops imaginary parts, `"overflow"` means that an element is outside the range of the wanted
    dtype: it would become infinite, saturate, wrap around, or lose its sign.

    `extent()` returns the range of the elements. It is called only if it makes a difference; without it, integers are
    assumed to overflow, and other numbers are not.

    >>> from statedict.state import dtype
    >>> cast_kind(dtype("bfloat16"), dtype("float32")), cast_kind(dtype("bfloat16"), dtype("float16"))
    ('widening', 'rounding')
    >>> [cast_kind(dtype("uint8"), dtype("int8"), lambda: ValueRange(0, high)) for high in (127, 128)]
    ['widening', 'overflow']
    """
    if found is wanted or found.kind not in NUMBERS:
        return None
    if wanted.kind not in NUMBERS:
        return "rounding" if wanted.kind == "quantized" else None
    if found.is_complex and not wanted.is_complex:
        return "imaginary"
    if _holds(wanted, found):
        return "widening"
    to_integers, from_integers = wanted.name not in _FLOATS, found.name not in _FLOATS
    if to_integers and from_integers:
        return "widening" if extent is not None and _contains(wanted, extent()) else "overflow"
    if extent is not None and not _contains(wanted, _whole(found)) and not _contains(wanted, extent()):
        return "overflow"
    return "truncation" if to_integers else "rounding"


def joined(extents: Iterable[ValueRange]) -> ValueRange:
    """Return the range of several ranges together."""
    found = list(extents)
    if not found:
        return ValueRange()
    lows, highs, nans, infinites = zip(*found)
    return ValueRange(min(lows), max(highs), any(nans), any(infinites))


def _holds(wanted: DType, found: DType) -> bool:
    """Whether `wanted` can represent every element of `found`."""
    whole, theirs, ours = _whole(found), _FLOATS.get(found.name), _FLOATS.get(wanted.name)
    if not _contains(wanted, whole):
        return False
    if ours is None:
        return theirs is None
    if theirs is None:
        return ours.signed and max(-whole.low, whole.high) <= 2**ours.precision
    return theirs.precision <= ours.precision and theirs.least >= ours.least


def _whole(dtype: DType) -> ValueRange:
    """Return the range of a dtype."""
    form = _FLOATS.get(dtype.name)
    if form is not None:
        return ValueRange(-form.largest if form.signed else 0, form.largest, nan=True, infinite=form.infinite)
    bits = 1 if dtype.kind == "bool" else 8 * dtype.itemsize
    return ValueRange(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "int" else ValueRange(0, 2**bits - 1)


def _contains(wanted: DType, extent: ValueRange) -> bool:
    """Whether the range, after rounding or cutting off fractions, is within that of the dtype."""
    form = _FLOATS.get(wanted.name)
    if form is None:
        whole = _whole(wanted)
        return not (extent.nan or extent.infinite) and whole.low <= int(extent.low) and int(extent.high) <= whole.high
    if (extent.infinite and not form.infinite) or (extent.low < 0 and not form.signed):
        return False
    return not _rounds_beyond(form, max(-extent.low, extent.high))


def _rounds_beyond(form: _Float, size: float) -> bool:
    """Whether a positive number rounds to more than the largest finite number (to nearest, ties to even)."""
    if form is not _DOUBLE and form is not _SINGLE and isinstance(size, float):
        size = _single(size)  # as PyTorch does it
    step = 1 << (form.largest.bit_length() - form.precision)
    middle = form.largest + step // 2
    return size > middle or (size == middle and form.largest // step % 2 == 1)


def _single(size: float) -> float:
    """Round to the nearest float32."""
    try:
        single: float = struct.unpack("<f", struct.pack("<f", size))[0]
    except OverflowError:
        return float("inf")
    return single
