"""Storages that lie beside each other in a file are read in one go, with what lies between them.

A zip puts some 130 bytes between two members. Reading them too costs less than anything done for each member: one call
reads what took a buffer, a place in a plan and an entry in a vectored read for each (4 µs a tensor).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Storages begin at multiples of this in memory; PyTorch's files are written so that they do in the file.
ALIGNMENT = 64
# What may lie between two that are read in one go, and stays in memory with them.
GAP = 256


Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Run(NamedTuple):
    """Bytes `start … start + nbytes` of the file, wanted at `place` of a block."""

    start: int
    nbytes: int
    place: int


class Layout(NamedTuple):
    """Where the storages come to lie in a block of `nbytes` bytes, and the runs that fill it."""

    places: Numbers
    runs: list[Run]
    nbytes: int


def lay_out(starts: Sequence[int] | Numbers, sizes: Sequence[int] | Numbers) -> Layout:
    """A block for extents of a file (in any order), aligned, in which neighbours lie as they do in the file.

    >>> layout = lay_out([128, 256, 9000], [64, 10, 8])
    >>> layout.places.tolist(), [tuple(run) for run in layout.runs]
    ([0, 128, 192], [(128, 138, 0), (9000, 8, 192)])
    """
    begin = np.array(starts, np.int64)
    order = np.argsort(begin, kind="stable")
    begin = begin[order]
    end = begin + np.array(sizes, np.int64)[order]
    gap = begin[1:] - end[:-1]
    apart = (gap < 0) | (gap > GAP) | ((begin[1:] - begin[:-1]) % ALIGNMENT != 0)
    first = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(apart) + 1])
    last = np.append(first[1:], len(begin)) - 1
    lengths = end[last] - begin[first]
    rooms = -(-lengths // ALIGNMENT) * ALIGNMENT
    blocks = np.cumsum(rooms) - rooms
    places = np.empty(len(begin), np.int64)
    places[order] = begin + np.repeat(blocks - begin[first], last - first + 1)
    runs = list(map(Run._make, zip(begin[first].tolist(), lengths.tolist(), blocks.tolist())))
    return Layout(places, runs, int(rooms.sum()))
