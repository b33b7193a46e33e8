"""Adaptive pooling: the number of windows is the size of the output, and the window lengths follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from .._arrays import Array, asarray, unwrap


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Array:
    """Return the means of `output_size` windows along the last dimension.

    Output i is the mean of the elements from ⌊i·length/size⌋ to ⌈(i + 1)·length/size⌉.

    >>> adaptive_avg_pool1d(np.array([[1.0, 2.0, 3.0]]), 2).tolist()
    [[1.5, 2.5]]
    """
    return _average(1, input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Array:
    """Return the means of windows over the last two dimensions; None in `output_size` keeps a dimension.

    >>> adaptive_avg_pool2d(np.zeros((2, 3, 8, 8)), 5).shape
    (2, 3, 5, 5)
    """
    return _average(2, input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Array:
    """Return the means of windows over the last three dimensions; None in `output_size` keeps a dimension.

    >>> adaptive_avg_pool3d(np.zeros((2, 3, 8, 8, 8)), 5).shape
    (2, 3, 5, 5, 5)
    """
    return _average(3, input, output_size)


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of `output_size` windows along the last dimension, and on request their positions.

    >>> adaptive_max_pool1d(np.zeros((2, 3, 8)), 5).shape
    (2, 3, 5)
    """
    return _largest(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of windows over the last two dimensions, and on request their positions.

    >>> adaptive_max_pool2d(np.zeros((2, 3, 8, 8)), 5).shape
    (2, 3, 5, 5)
    """
    return _largest(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Return the maxima of windows over the last three dimensions, and on request their positions.

    >>> adaptive_max_pool3d(np.zeros((2, 3, 8, 8, 8)), 5).shape
    (2, 3, 5, 5, 5)
    """
    return _largest(3, input, output_size, return_indices)


def _average(count: int, input: Any, output_size: Any) -> Array:
    xp, x = unwrap(input)
    for axis, size in _wanted(count, x, output_size):
        means = [xp.mean(x[index], axis=axis) for index in _intervals(axis, x.shape[axis], size)]
        x = xp.stack(means, axis=axis)
    return x


def _largest(count: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    xp, x = unwrap(input)
    lengths = x.shape[x.ndim - count :]
    numbers = xp.broadcast_to(asarray(x, np.arange(prod(lengths)).reshape(lengths)), x.shape)
    for axis, size in _wanted(count, x, output_size):
        intervals = _intervals(axis, x.shape[axis], size)
        if return_indices:
            # The index of the maximum: the indices of other elements are replaced by one that is too large.
            tops = [xp.max(x[i], axis=axis, keepdims=True) for i in intervals]
            beyond = prod(lengths)
            found = [xp.where(x[i] == t, numbers[i], beyond) for i, t in zip(intervals, tops)]
            numbers = xp.stack([xp.min(f, axis=axis) for f in found], axis=axis)
        x = xp.stack([xp.max(x[i], axis=axis) for i in intervals], axis=axis)
    return (x, numbers) if return_indices else x


def _wanted(count: int, x: Array, output_size: Any) -> list[tuple[int, int]]:
    """Return (axis, size) of the dimensions that change, the last first."""
    if x.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"pooling over {count} dimensions needs an input of {count + 1} or {count + 2}, not {x.ndim}"
        )
    given = tuple(output_size) if isinstance(output_size, Iterable) else (output_size,) * count
    given = given * count if len(given) == 1 else given
    axes = range(x.ndim - count, x.ndim)
    sizes = [(axis, x.shape[axis] if size is None else int(size)) for axis, size in zip(axes, given)]
    return [(axis, size) for axis, size in reversed(sizes) if size != x.shape[axis]]


def _intervals(axis: int, length: int, size: int) -> list[tuple[Any, ...]]:
    intervals = [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    return [(*(slice(None),) * axis, interval, ...) for interval in intervals]
