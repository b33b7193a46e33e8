"""Padding: constant, reflected, repeated or wrapped around, in PyTorch's order (the last dimension first)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import Array, Namespace, asarray, full, unwrap


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Array:
    """Add elements at the ends of the last dimensions; negative numbers remove elements.

    Args:
        input: any shape; for modes other than "constant", with one or two more dimensions than are padded.
        pad: (before, after) of the last dimension, then of the one before it, and so on.
        mode: "constant", "reflect", "replicate" or "circular".
        value: the value for "constant"; None means 0.

    >>> pad(np.array([1, 2, 3]), (1, 2)).tolist()
    [0, 1, 2, 3, 0, 0]
    """
    xp, x = unwrap(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise RuntimeError(f"Padding length must be divisible by two and at most twice the number of dimensions: {pad}")
    if mode == "constant":
        return _constant(xp, x, pad, 0 if value is None else value)
    if mode not in _SOURCES:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    for i in range(len(pad) // 2):
        axis = x.ndim - 1 - i
        if pad[2 * i] or pad[2 * i + 1]:
            positions = _SOURCES[mode](x.shape[axis], pad[2 * i], pad[2 * i + 1])
            x = xp.take(x, asarray(x, positions), axis=axis)
    return x


def _constant(xp: Namespace, x: Array, pad: Sequence[int], value: float) -> Array:
    for i in range(len(pad) // 2):
        low, high = pad[2 * i], pad[2 * i + 1]
        axis = x.ndim - 1 - i
        if x.shape[axis] + low + high < 0:
            raise RuntimeError(f"padding ({low}, {high}) removes all of a dimension of size {x.shape[axis]}")
        if low < 0 or high < 0:
            kept = slice(max(-low, 0), x.shape[axis] - max(-high, 0))
            x = x[(slice(None),) * axis + (kept, ...)]
    added = [(max(low, 0), max(high, 0)) for low, high in zip(pad[::2], pad[1::2])]
    added = [(0, 0)] * (x.ndim - len(added)) + added[::-1]
    if not any(low or high for low, high in added):
        return x
    return _around(x, added, value) if xp is np else _beside(xp, x, added, value)


def _around(x: Array, added: list[tuple[int, int]], value: float) -> Array:
    """NumPy: one allocation and one copy, however many dimensions are padded."""
    shape = [low + length + high for length, (low, high) in zip(x.shape, added)]
    padded = np.zeros(shape, x.dtype) if value == 0 else np.full(shape, value, x.dtype)
    padded[tuple(slice(low, low + length) for length, (low, _) in zip(x.shape, added))] = x
    return padded


def _beside(xp: Namespace, x: Array, added: list[tuple[int, int]], value: float) -> Array:
    for axis, (low, high) in enumerate(added):
        pieces = [x]
        if low:
            pieces.insert(0, full(x, (*x.shape[:axis], low, *x.shape[axis + 1 :]), value))
        if high:
            pieces.append(full(x, (*x.shape[:axis], high, *x.shape[axis + 1 :]), value))
        x = xp.concat(pieces, axis=axis) if len(pieces) > 1 else x
    return x


def _reflected(length: int, low: int, high: int) -> np.ndarray[Any, Any]:
    if max(low, high) >= length:
        raise RuntimeError(
            "Padding size should be less than the corresponding input dimension, but got: padding "
            f"({low}, {high}) at a dimension of {length}"
        )
    positions = np.abs(np.arange(-low, length + high))
    mirrored: np.ndarray[Any, Any] = length - 1 - np.abs(length - 1 - positions)
    return mirrored


def _repeated(length: int, low: int, high: int) -> np.ndarray[Any, Any]:
    return np.clip(np.arange(-low, length + high), 0, length - 1)


def _wrapped(length: int, low: int, high: int) -> np.ndarray[Any, Any]:
    if max(low, high) > length:
        raise RuntimeError("Padding value causes wrapping around more than once.")
    return np.arange(-low, length + high) % length


# For each mode, the indices of the input elements for the output, including negative padding.
_SOURCES = {"reflect": _reflected, "replicate": _repeated, "circular": _wrapped}
