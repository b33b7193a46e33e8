"""Arrays that suites write and compare: every dtype, awkward layouts, elements that do not repeat."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from statedict.state import DTYPES

Array = np.ndarray[Any, Any]

# Dtypes whose elements NumPy (with ml_dtypes) can hold, by PyTorch's names.
ALL = tuple(
    name
    for name, of in DTYPES.items()
    if of.kind in ("float", "complex", "int", "uint", "bool") and "," not in of.carrier
)
SHAPES = ((), (1,), (5,), (2, 3), (0,), (0, 3), (2, 1, 3, 4))


def array_of(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return an array of random bits, the same at each call with the same arguments."""
    of = DTYPES[dtype].numpy
    nbytes = prod(shape) * of.itemsize
    raw = np.random.default_rng([seed, *shape]).integers(0, 2 if dtype == "bool" else 256, nbytes, np.uint8)
    return raw.view(of).reshape(shape)


def layouts(dtype: str) -> dict[str, Array]:
    """Return arrays whose elements do not lie one after the other in memory, by the name of their layout."""
    base = array_of(dtype, (4, 6))
    return {
        "transposed": base.T,
        "every other column": base[:, ::2],
        "reversed": base[::-1],
        "a part": base[1:3, 2:5],
        "expanded": np.broadcast_to(base[0], (3, 6)),
        "column-major": np.asfortranarray(base),
    }


def same(a: object, b: object) -> bool:
    """Return whether two arrays have the same dtype, shape and bits."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return False
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def shown(value: object) -> str:
    """Describe an array by its dtype and shape, and an error by its text."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else repr(value)
