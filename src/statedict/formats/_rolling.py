"""Sliding windows over bytes: a cheaper `numpy.lib.stride_tricks.sliding_window_view` for many small calls."""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


def rolling(raw: Bytes, width: int) -> Bytes:
    """Return a view whose row `i` is the `width` bytes that begin at `i`. Index it to select rows.

    >>> rolling(np.arange(5, dtype=np.uint8), 3)[[0, 2]].tolist()
    [[0, 1, 2], [2, 3, 4]]
    """
    return np.ndarray((len(raw) - width + 1, width), np.uint8, raw, strides=(1, 1))


def uint32(raw: Bytes, places: Numbers) -> Numbers:
    """Return the little-endian 32-bit numbers that begin at `places`.

    >>> uint32(np.array([0, 1, 0, 0, 0], np.uint8), np.array([0, 1])).tolist()
    [256, 1]
    """
    every: np.ndarray[Any, np.dtype[np.uint32]] = np.ndarray(len(raw) - 3, "<u4", raw, strides=(1,))
    return every[places].astype(np.int64)
