"""What casting does to elements, as far as the two dtypes tell without reading any."""

from __future__ import annotations

from statedict.state import DType

# Bits of exponent and of mantissa: what a float can hold is what both allow.
_BITS = {
    "float64": (11, 52),
    "float32": (8, 23),
    "float16": (5, 10),
    "bfloat16": (8, 7),
    "float8_e4m3fn": (4, 3),
    "float8_e4m3fnuz": (4, 3),
    "float8_e5m2": (5, 2),
    "float8_e5m2fnuz": (5, 2),
    "float8_e8m0fnu": (8, 0),
    "complex128": (11, 52),
    "complex64": (8, 23),
    "complex32": (5, 10),
}
_NUMBERS = ("float", "complex", "int", "uint", "bool")


def cast_kind(found: DType, wanted: DType) -> str | None:
    """`"widening"` keeps every element, `"rounding"` keeps them nearly, `"truncation"` cuts fractions, `"imaginary"` drops
    imaginary parts, `"overflow"` may wrap integers around; None where nothing is cast, or these are no numbers.

    >>> from statedict.state import dtype
    >>> cast_kind(dtype("bfloat16"), dtype("float32")), cast_kind(dtype("bfloat16"), dtype("float16"))
    ('widening', 'rounding')
    """
    if found is wanted or not (found.kind in _NUMBERS and wanted.kind in _NUMBERS):
        return None
    if found.is_complex and not wanted.is_complex:
        return "imaginary"
    if found.name in _BITS and wanted.name not in _BITS:
        return "truncation"
    if _holds(found, wanted):
        return "widening"
    return "rounding" if wanted.name in _BITS else "overflow"


def _holds(found: DType, wanted: DType) -> bool:
    """Whether every element of `found` is one of `wanted`."""
    if found.name in _BITS:
        exponent, mantissa = _BITS[wanted.name]
        variants = found.name.startswith("float8") and wanted.name.startswith("float8")  # biases and specials differ
        return not variants and exponent >= _BITS[found.name][0] and mantissa >= _BITS[found.name][1]
    if found.kind == "bool" or wanted.kind == "bool":
        return found.kind == "bool"
    bits = 8 * found.itemsize - (found.kind == "int")
    if wanted.name in _BITS:
        exponent, mantissa = _BITS[wanted.name]
        return bits <= mantissa + 1 and bits < 2 ** (exponent - 1)
    return bits <= 8 * wanted.itemsize - (wanted.kind == "int") and (found.kind == "uint" or wanted.kind == "int")
