"""Embeddings: rows of a table by index, single or in bags; and one-hot vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import Array, as_numpy, asarray, cast, dtype_of, full, put, unwrap
from .._variable import raw


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Array:
    """Return the rows of `weight` with the indices in `input`.

    Args:
        input: integers of any shape, each from 0 to rows - 1.
        weight: (rows, width). With `max_norm`, used rows with a larger norm are scaled down in place.
        padding_idx, scale_grad_by_freq, sparse: affect only gradients, so they have no effect here.

    Returns:
        (*input's shape, width). Raises IndexError for an index out of range.

    >>> embedding(np.array([1, 0]), np.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[3.0, 4.0], [1.0, 2.0]]
    """
    if max_norm is not None:
        _shorten(input, weight, max_norm, norm_type)
    xp, indices, table = unwrap(input, weight)
    _check(indices, table)
    rows = xp.take(table, xp.reshape(indices, (-1,)), axis=0)
    return xp.reshape(rows, (*indices.shape, *table.shape[1:]))


def embedding_bag(
    input: Any,
    weight: Any,
    offsets: Any = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Array:
    """Return the sum, mean or maximum of the rows in each bag of indices; zeros for an empty bag.

    Args:
        input: (bags, indices), or one dimension with `offsets`, the start of each bag.
        weight: (rows, width).
        mode: "sum", "mean" or "max".
        per_sample_weights: a factor for each index, only for "sum".
        include_last_offset: the last offset is the end of the last bag.
        padding_idx: an index that is ignored.

    Returns:
        (bags, width).

    >>> embedding_bag(np.array([[0, 1], [1, 1]]), np.array([[1.0, 2.0], [3.0, 4.0]]), mode="sum").tolist()
    [[4.0, 6.0], [6.0, 8.0]]
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported for mode='sum' "
            f"(got mode='{mode}'). Please open a feature request on GitHub."
        )
    _, indices = unwrap(input)
    picked, used = _bags(indices, raw(offsets), include_last_offset)
    xp, table, factors = unwrap(weight, per_sample_weights)
    places = asarray(table, picked.reshape(-1))
    numbers = xp.take(xp.reshape(indices, (-1,)), places, axis=0) if indices.size else indices
    if padding_idx is not None:
        padding = padding_idx % table.shape[0]
        used = asarray(table, used) & (xp.reshape(numbers, picked.shape) != padding)
    rows = embedding(numbers, weight, max_norm=max_norm, norm_type=norm_type)
    rows = xp.reshape(rows, (*picked.shape, table.shape[1]))
    counted = asarray(table, used)[..., None]
    if mode == "max":
        return _largest(rows, counted)
    counted = cast(counted, dtype_of(rows.dtype))
    if factors is not None:
        rows = rows * xp.reshape(xp.take(xp.reshape(factors, (-1,)), places, axis=0), (*picked.shape, 1))
    sums = xp.sum(rows * counted, axis=1)
    return sums if mode == "sum" else sums / xp.clip(xp.sum(counted, axis=1), 1, None)


def one_hot(tensor: Any, num_classes: int = -1) -> Array:
    """Return each integer n as a vector of `num_classes` integers with a 1 at position n; by default as many as needed.

    >>> one_hot(np.array([0, 2])).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    xp, numbers = unwrap(tensor)
    count = int(xp.max(numbers)) + 1 if num_classes == -1 else num_classes
    if isinstance(numbers, np.ndarray) and numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        raise RuntimeError(f"class values must be from 0 to {count - 1}")
    places = asarray(numbers, np.arange(count))
    return cast(numbers[..., None] == places, dtype_of("int64"))


def _bags(indices: Array, offsets: Any, include_last_offset: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return (bags, longest bag): the flat position in the input for each entry, and whether there is one."""
    if indices.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is a mini-batch")
        picked = np.arange(indices.shape[0] * indices.shape[1]).reshape(tuple(indices.shape))
        return picked, np.ones(picked.shape, bool)
    if indices.ndim != 1:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {indices.ndim}")
    if offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    starts = as_numpy(offsets)
    ends = starts[1:] if include_last_offset else np.append(starts[1:], indices.shape[0])
    starts = starts[: len(ends)]
    lengths = ends - starts
    within = np.arange(lengths.max(initial=0))
    used = within < lengths[:, None]
    return np.where(used, starts[:, None] + within, 0), used


def _largest(rows: Array, counted: Array) -> Array:
    xp, rows, counted = unwrap(rows, counted)
    if not rows.shape[1]:
        return xp.sum(rows, axis=1)
    lowest = full(rows, (), float("-inf"))
    largest = xp.max(xp.where(counted, rows, lowest), axis=1)
    return xp.where(xp.any(counted, axis=1), largest, xp.zeros_like(largest))


def _shorten(input: Any, weight: Any, max_norm: float, norm_type: float) -> None:
    xp, indices, table = unwrap(input, weight)
    norms = xp.sum(xp.abs(table) ** norm_type, axis=-1) ** (1 / norm_type)
    used = xp.any(xp.reshape(indices, (-1, 1)) == asarray(indices, np.arange(table.shape[0])), axis=0)
    factor = xp.where(used & (norms > max_norm), max_norm / (norms + 1e-7), xp.ones_like(norms))
    put(weight, table * factor[:, None])


def _check(indices: Array, table: Array) -> None:
    """PyTorch refuses negative indices; NumPy would count them from the end, and JAX would clip them."""
    if isinstance(indices, np.ndarray) and indices.size and (indices.min() < 0 or indices.max() >= table.shape[0]):
        raise IndexError("index out of range in self")
