"""Sliding windows over the last dimensions of an array: their number, and a view of their elements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .._arrays import Array, Namespace, asarray

Sizes = tuple[int, ...]


def expanded(value: Any, count: int) -> Sizes:
    """Return a number, or a sequence of one, `count` times; a sequence of `count` as a tuple.

    >>> expanded(3, 2), expanded((1, 2), 2)
    ((3, 3), (1, 2))
    """
    if not isinstance(value, Iterable):
        return (int(value),) * count
    sizes = tuple(int(v) for v in value)
    sizes = sizes * count if len(sizes) == 1 else sizes
    if len(sizes) != count:
        raise RuntimeError(f"expected a number or a list of {count} values, but got {list(sizes)}")
    return sizes


def positions(length: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return the number of windows that fit into a dimension of `length`."""
    return (length - dilation * (kernel - 1) - 1) // stride + 1


def windows(xp: Namespace, x: Array, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Array:
    """Return (…, *lengths) as (…, *positions, *kernel): the elements of each window. In NumPy this is a view."""
    count = len(kernel)
    lead, lengths = tuple(x.shape[: x.ndim - count]), tuple(x.shape[x.ndim - count :])
    places = tuple(map(positions, lengths, kernel, stride, dilation))
    if xp is np:
        steps = x.strides[x.ndim - count :]
        shown = tuple(step * s for step, s in zip(steps, stride)) + tuple(step * d for step, d in zip(steps, dilation))
        return np.lib.stride_tricks.as_strided(
            x, lead + places + kernel, x.strides[: x.ndim - count] + shown, writeable=False
        )
    for i in range(count):
        index = np.arange(places[i])[:, None] * stride[i] + np.arange(kernel[i]) * dilation[i]
        x = xp.take(x, asarray(x, index.reshape(-1)), axis=len(lead) + 2 * i)
        x = xp.reshape(x, (*lead, *_paired(places, kernel, i + 1), *lengths[i + 1 :]))
    order = [len(lead) + 2 * i for i in range(count)] + [len(lead) + 2 * i + 1 for i in range(count)]
    return xp.permute_dims(x, (*range(len(lead)), *order))


def _paired(places: Sizes, kernel: Sizes, count: int) -> list[int]:
    return [size for pair in list(zip(places, kernel))[:count] for size in pair]
