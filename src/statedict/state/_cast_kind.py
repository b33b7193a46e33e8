"""What casting does to elements: told by the two dtypes, and by the range of the values where the dtypes leave it open.

One table for every array library. Ranges are compared as exact Python numbers; nothing is cast there and back, which a
wrap of bits would survive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from ._dtype import DType

CastKind = Literal["widening", "rounding", "truncation", "imaginary", "overflow"]


class Cast(NamedTuple):
    """A tensor that was loaded into another dtype; `kind` says what that does to its elements (`"widening"` keeps them)."""

    name: str
    found: str
    wanted: str
    kind: CastKind


class Extent(NamedTuple):
    """The range of some elements (of complex ones: of their parts).

    Attributes:
        low, high: the least and the greatest finite element; 0 where there is none.
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
        infinite: whether there are infinities.
        signed: whether there are negative numbers, and zero.
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


def cast_kind(found: DType, wanted: DType, extent: Callable[[], Extent] | None = None) -> CastKind | None:
    """What casting from `found` to `wanted` does to the elements; None where nothing is cast, or these are not numbers.

    `"widening"` keeps every element, `"rounding"` keeps them as nearly as the dtype can, `"truncation"` cuts fractions,
    `"imaginary"` drops imaginary parts, `"overflow"` is an element outside of the wanted dtype's range: it would become
    infinite, saturate, wrap around, or lose its sign.

    `extent()` gives the range of the elements. It is called only where it makes a difference; without it, integers are
    taken to overflow, and other numbers not to.

    >>> from statedict.state import dtype
    >>> cast_kind(dtype("bfloat16"), dtype("float32")), cast_kind(dtype("bfloat16"), dtype("float16"))
    ('widening', 'rounding')
    >>> [cast_kind(dtype("uint8"), dtype("int8"), lambda: Extent(0, high)) for high in (127, 128)]
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


def joined(extents: Iterable[Extent]) -> Extent:
    """The range of several together."""
    found = list(extents)
    if not found:
        return Extent()
    lows, highs, nans, infinites = zip(*found)
    return Extent(min(lows), max(highs), any(nans), any(infinites))


def _holds(wanted: DType, found: DType) -> bool:
    """Whether every element of `found` is one of `wanted`."""
    whole, theirs, ours = _whole(found), _FLOATS.get(found.name), _FLOATS.get(wanted.name)
    if not _contains(wanted, whole):
        return False
    if ours is None:
        return theirs is None
    if theirs is None:
        return ours.signed and max(-whole.low, whole.high) <= 2**ours.precision
    return theirs.precision <= ours.precision and theirs.least >= ours.least


def _whole(dtype: DType) -> Extent:
    """The range of all that a dtype can hold."""
    form = _FLOATS.get(dtype.name)
    if form is not None:
        return Extent(-form.largest if form.signed else 0, form.largest, nan=True, infinite=form.infinite)
    bits = 1 if dtype.kind == "bool" else 8 * dtype.itemsize
    return Extent(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.kind == "int" else Extent(0, 2**bits - 1)


def _contains(wanted: DType, extent: Extent) -> bool:
    """Whether nothing of the range is outside of the dtype's, once fractions are cut or rounded."""
    form = _FLOATS.get(wanted.name)
    if form is None:
        whole = _whole(wanted)
        return not (extent.nan or extent.infinite) and whole.low <= int(extent.low) and int(extent.high) <= whole.high
    if (extent.infinite and not form.infinite) or (extent.low < 0 and not form.signed):
        return False
    return not _rounds_beyond(form, max(-extent.low, extent.high))


def _rounds_beyond(form: _Float, size: float) -> bool:
    """Whether a positive number is nearer to what would come after the largest one. A tie goes to the even one of them."""
    if form is not _DOUBLE and form is not _SINGLE and isinstance(size, float):
        size = _single(size)  # as PyTorch does it
    step = 1 << (form.largest.bit_length() - form.precision)
    middle = form.largest + step // 2
    return size > middle or (size == middle and form.largest // step % 2 == 1)


def _single(size: float) -> float:
    """The nearest float32."""
    try:
        single: float = struct.unpack("<f", struct.pack("<f", size))[0]
    except OverflowError:
        return float("inf")
    return single
