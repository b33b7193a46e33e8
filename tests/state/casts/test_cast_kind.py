"""The kind of a cast follows from the dtypes alone; PyTorch's promotion and real casts are the oracle."""

import numpy as np
import pytest

from statedict.state import cast_kind, dtype

KINDS = [
    ("float32", "float32", None),
    ("float16", "float32", "widening"),
    ("float32", "float16", "rounding"),
    ("bfloat16", "float16", "rounding"),
    ("float16", "bfloat16", "rounding"),
    ("float8_e4m3fn", "float16", "widening"),
    ("float8_e4m3fn", "float8_e5m2", "rounding"),
    ("complex64", "float32", "imaginary"),
    ("float32", "complex64", "widening"),
    ("float64", "complex64", "rounding"),
    ("float32", "int64", "truncation"),
    ("float32", "bool", "truncation"),
    ("int64", "float32", "rounding"),
    ("int16", "float32", "widening"),
    ("int16", "float16", "rounding"),
    ("int64", "int32", "overflow"),
    ("int8", "uint8", "overflow"),
    ("uint8", "int16", "widening"),
    ("uint8", "int8", "overflow"),
    ("bool", "uint8", "widening"),
    ("bool", "float16", "widening"),
    ("int8", "bool", "overflow"),
    ("qint8", "float32", None),
]


@pytest.mark.parametrize(("found", "wanted", "kind"), KINDS)
def test_kinds(found, wanted, kind):
    """Each cast is what it does to the elements of the one dtype."""
    assert cast_kind(dtype(found), dtype(wanted)) == kind


NUMBERS = ["float64", "float32", "float16", "bfloat16", "complex128", "complex64", "bool"]
NUMBERS += ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]


@pytest.mark.parametrize("found", NUMBERS)
def test_widening_keeps_the_extremes(found):
    """In a widening cast the largest, smallest and finest elements come back unchanged."""
    theirs = dtype(found).numpy
    if dtype(found).kind in ("int", "uint"):
        limits = np.iinfo(theirs)
        extremes = np.array([limits.min, limits.max, limits.max - 1], theirs)
    else:
        extremes = np.array([0, 1]).astype(theirs)
        if dtype(found).is_floating or dtype(found).is_complex:
            import ml_dtypes

            limits = ml_dtypes.finfo(theirs)
            extremes = np.array([limits.max, limits.smallest_subnormal, 1 + float(limits.eps)]).astype(theirs)
    for wanted in map(dtype, NUMBERS):
        if cast_kind(dtype(found), wanted) == "widening":
            there = extremes.astype(wanted.numpy)
            there = there if dtype(found).is_complex else there.real
            assert (there.astype(theirs) == extremes).all()
