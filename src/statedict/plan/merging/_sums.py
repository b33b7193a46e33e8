"""Weighted sums of states, which are computed in pieces: average, task arithmetic, exponential moving average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from statedict.state import DType, Leaf, cast_array, elementwise
from statedict.state import dtype as find_dtype

from ..operations._joins import plain

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def weighted_sum(leaves: Sequence[Leaf], weights: Sequence[float]) -> Leaf:
    """Return the sum of weighted leaves, in the dtype of the first: added up in `wide` and rounded once."""
    dtype = leaves[0].spec.dtype
    wider = wide(dtype)

    def added(*arrays: Array) -> Array:
        total = cast_array(arrays[0], wider) * weights[0]
        for array, weight in zip(arrays[1:], weights[1:]):
            total = total + cast_array(array, wider) * weight
        return cast_array(total, dtype)

    return elementwise(dtype, leaves, added, plain(leaves[0]))


def moving_average(leaves: Sequence[Leaf], decay: float) -> Leaf:
    """Return the exponential moving average of leaves in order of time, with the roundings of PyTorch's
    `get_ema_avg_fn(decay)`: after each product and each sum, to the dtype of the first leaf.
    """
    dtype = leaves[0].spec.dtype
    working, rounded = arithmetic(dtype)

    def averaged(*arrays: Array) -> Array:
        kind = working.numpy.type
        average = cast_array(arrays[0], working)
        for array in arrays[1:]:
            old, new = average * kind(decay), cast_array(array, working) * kind(1 - decay)
            average = rounded(rounded(old) + rounded(new))
        return cast_array(average, dtype)

    return elementwise(dtype, leaves, averaged, plain(leaves[0]))


def wide(dtype: DType) -> DType:
    """Return the dtype for sums that are rounded once."""
    if dtype.is_complex:
        return find_dtype("complex128")
    return find_dtype("float32" if dtype.itemsize < 4 else "float64")


def arithmetic(dtype: DType) -> tuple[DType, Callable[[Array], Array]]:
    """Return the dtype in which PyTorch computes with tensors of a dtype, and a function that rounds a result as it does."""
    if dtype.name in ("float32", "float64", "complex64", "complex128"):
        return dtype, lambda array: array
    working = find_dtype("complex64" if dtype.is_complex else "float32")
    if dtype.itemsize == 1:  # PyTorch does not compute with these dtypes; rounding every result would leave little
        return working, lambda array: array
    return working, lambda array: cast_array(cast_array(array, dtype), working)
