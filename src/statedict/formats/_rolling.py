"""Bytes looked at from each of their places: NumPy's `sliding_window_view`, for 1 µs instead of 8."""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


def rolling(raw: Bytes, width: int) -> Bytes:
    """A row of `width` bytes from each place on: a view, of which rows are chosen by an index.

    >>> rolling(np.arange(5, dtype=np.uint8), 3)[[0, 2]].tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    return np.ndarray((len(raw) - width + 1, width), np.uint8, raw, strides=(1, 1))


def uint32(raw: Bytes, places: Numbers) -> Numbers:
    """The little-endian numbers of 4 bytes at the places.

    >>> uint32(np.array([0, 1, 0, 0, 0], np.uint8), np.array([0, 1])).tolist()
    [256, 1]
    """
    every: np.ndarray[Any, np.dtype[np.uint32]] = np.ndarray(len(raw) - 3, "<u4", raw, strides=(1,))
    return every[places].astype(np.int64)
