"""Memory by address: views, and copies of many rows of a table at once."""

import tracemalloc

import numpy as np
import pytest

from statedict.state import PLAIN, RowKind, Table, contiguous, copies_of, dtype, view_of


def table(array, starts, sizes):
    kinds = [RowKind(contiguous(dtype("uint8"), (size,)), PLAIN) for size in sorted(set(sizes))]
    which = [sorted(set(sizes)).index(size) for size in sizes]
    return Table(None, kinds, which, [array.ctypes.data + start for start in starts], sizes, [array] * len(sizes))


@pytest.mark.parametrize("sizes", [[7] * 50, [64] * 16, [1, 2] * 30, [5000] * 20, [9] * 3, [1]])
def test_copies_are_what_views_show(sizes):
    """Copies have the bytes that views show, for any number, any sizes and any range of rows."""
    array = np.random.default_rng(0).integers(0, 256, 100 * sum(sizes), np.uint8)
    starts = [97 * sum(sizes[:row]) for row in range(len(sizes))]
    found = table(array, starts, sizes)
    expected = [array[start : start + size].tobytes() for start, size in zip(starts, sizes)]
    assert copies_of(found, 0, len(sizes)) == expected
    assert copies_of(found, len(sizes) // 3, len(sizes) - 1) == expected[len(sizes) // 3 : -1]
    assert [bytes(view_of(found, row)) for row in range(len(sizes))] == expected


def test_what_lies_between_is_not_touched():
    """Small tensors that are far apart, in any order, are copied without accessing the memory between them."""
    array = np.zeros(1 << 28, np.uint8)
    starts = [(17 * row % 64) << 22 for row in range(64)]
    for row, start in enumerate(starts):
        array[start : start + 16] = row
    found = table(array, starts, [16] * 64)
    tracemalloc.start()
    copies = copies_of(found, 0, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert copies == [bytes([row]) * 16 for row in range(64)]
    assert peak < 1 << 20
