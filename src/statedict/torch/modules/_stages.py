"""Small tensors that are filled from a file: many are read at a time into one buffer, a stage, and copied from there.

Reading 32,000 of them directly would need a view and a backup of each. When the copying begins, the read of a stage is
complete, and copying cannot fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from ctypes import memmove
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from statedict.state import Blocks, Table

from ..tensors._copy_pairs import addresses

# Tensors below this size are staged: a copy of 64 KiB takes as long as the system call that it saves.
SMALL = 64 << 10
# The size of a stage, and the bytes that a file may have between two tensors that are read in one call.
STAGE = 8 << 20
BETWEEN = 192


class Stage(NamedTuple):
    """Small tensors, and a table with the elements of each."""

    tensors: Sequence[Any]
    table: Table

    def fill(self, verify: bool) -> None:
        """Read the elements of all rows, and then copy them into the tensors."""
        found = self.table.read(verify=verify)
        deque(self.copies(found), maxlen=0)

    def copies(self, found: Blocks) -> Iterator[object]:
        """Return an iterator that copies the elements that were read into the tensors, without running any Python code."""
        targets, sizes = addresses(self.tensors), self.table.sizes
        copies = []
        for some, block, places in found:
            if len(some) == len(sizes):
                copies.append(scattered(block, places, targets, sizes))
            else:
                copies.append(scattered(block, places, [targets[row] for row in some], [sizes[row] for row in some]))
        return chain.from_iterable(copies)


def split(sizes: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Return the rows that are staged, and the large ones; rows without elements are in neither."""
    if not sizes or 0 < min(sizes) <= max(sizes) < SMALL:
        return range(len(sizes)), ()
    return (
        [row for row, nbytes in enumerate(sizes) if 0 < nbytes < SMALL],
        [row for row, nbytes in enumerate(sizes) if nbytes >= SMALL],
    )


def stages(tensors: Sequence[Any], table: Table, rows: Sequence[int]) -> Iterator[Stage]:
    """Divide these rows, in order, into stages of limited size."""
    ends, room = [0], STAGE
    fits = sum(map(table.sizes.__getitem__, rows)) + BETWEEN * len(rows) <= STAGE
    for index, row in enumerate(() if fits else rows):
        needed = table.sizes[row] + BETWEEN
        if needed > room and index:
            ends.append(index)
            room = STAGE
        room -= needed
    for start, end in pairwise([*ends, len(rows)]):
        some = rows[start:end]
        if some:
            yield Stage(tensors if len(some) == len(tensors) else [tensors[row] for row in some], table.taken(some))


def scattered(
    block: memoryview, places: Sequence[int], targets: Sequence[int], sizes: Sequence[int]
) -> Iterator[object]:
    """Copy runs of `sizes` bytes from `places` in the block to the addresses `targets`: a run for each item."""
    start = np.frombuffer(block, np.uint8).ctypes.data
    return map(memmove, targets, [start + place for place in places], sizes)
