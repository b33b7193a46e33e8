"""Bytes of one block of memory go to thousands of places, in a few calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from ctypes import memmove
from typing import Any

import numpy as np

from statedict.files import grouped
from statedict.state import copy_rows

# So many runs of one length, none of them longer, are copied together: 0.07 µs each, where one at a time takes 0.6.
FEW, SMALL = 16, 4096

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def scatter(block: memoryview, places: Sequence[int], targets: Sequence[int], sizes: Sequence[int]) -> None:
    """Copy to each address in `targets` as many bytes as `sizes` says, from where in the block `places` says.

    Where targets overlap, the last one wins, as if copied in order.
    """
    start = np.frombuffer(block, np.uint8).ctypes.data
    where, to, counts = (np.asarray(column, np.int64) for column in (places, targets, sizes))
    groups = list(grouped(counts)) if _are_apart(to, counts) else []
    alone = [] if groups else list(range(len(counts)))
    for size, rows in groups:
        if len(rows) >= FEW and 0 < size <= SMALL:
            columns: Any = start + where[rows], to[rows], counts[rows]
            copy_rows(*columns)
        else:
            alone += rows.tolist()
    deque(map(memmove, to[alone].tolist(), (start + where[alone]).tolist(), counts[alone].tolist()), maxlen=0)


def _are_apart(starts: Numbers, sizes: Numbers) -> bool:
    order = np.argsort(starts)
    return bool((np.diff(starts[order]) >= sizes[order][:-1]).all())
