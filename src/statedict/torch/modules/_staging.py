"""Small tensors are read many at a time: into one staging buffer, and copied from there in one call.

In go pairs of a tensor and the leaf for it whose elements lie alike. Reading straight into 32,000 tensors' own memory would
need a view of each and a backup of each, because a read may fail half-way; here the read of a stage is over when its copy
begins, and that copy cannot fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from ctypes import memmove
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from statedict.state import Leaf, Many, Read, arena, blocks

from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._memory import addresses

# Tensors below this are staged: a copy of 64 KiB takes as long as the system call that it saves.
SMALL = 64 << 10
# What a stage holds at once, and what a file may have between two tensors that are read in one go.
STAGE = 8 << 20
BETWEEN = 192

# What `state.blocks` gives: which of the leaves a block has, the block, and where each begins in it.
Blocks = Sequence[tuple[Sequence[int], memoryview, list[int]]]


class Stage(NamedTuple):
    """Tensors, the leaves for them, and the bytes of each; the leaves as rows, where they are that."""

    tensors: Sequence[Any]
    leaves: Sequence[Leaf]
    sizes: Sequence[int]
    rows: Many | None


def stages(
    tensors: Sequence[Any], leaves: Sequence[Leaf], sizes: Sequence[int], rows: Many | None = None
) -> list[Stage]:
    """Tensors and leaves whose elements lie alike, in runs that fit the buffer, in order."""
    if not sizes:
        return []
    if sum(sizes) + BETWEEN * len(sizes) <= STAGE:
        return [Stage(tensors, leaves, sizes, rows)]
    bounds = [0]
    room = STAGE
    for index, size in enumerate(sizes):
        if size + BETWEEN > room and index:
            bounds.append(index)
            room = STAGE
        room -= size + BETWEEN
    bounds.append(len(sizes))
    return [
        Stage(tensors[a:b], leaves[a:b], sizes[a:b], None if rows is None else Many(rows.table, rows.numbers[a:b]))
        for a, b in pairwise(bounds)
    ]


def fill(stage: Stage, verify: bool) -> None:
    """Read the leaves' elements, all of them, and only then write the tensors."""
    write(stage, read(stage, verify))


def read(stage: Stage, verify: bool) -> Blocks:
    """The leaves' elements in fresh memory."""
    _, leaves, sizes, rows = stage
    if rows is None:
        starts = [leaf.spec.offset * leaf.spec.dtype.itemsize for leaf in leaves]
        return blocks([leaf.storage for leaf in leaves], starts, sizes, verify=verify)
    block, places = rows.table.fresh(rows.numbers, verify=verify)
    return [(range(len(sizes)), block, places)]


def write(stage: Stage, found: Blocks) -> None:
    """Copy the elements that `read` gave into the tensors; partner of `read`."""
    tensors, _, sizes, _ = stage
    targets = addresses(tensors)
    torch.autograd.graph.increment_version(list(tensors))
    for some, block, places in found:
        to, counts = (targets, sizes) if len(some) == len(sizes) else ([c[n] for n in some] for c in (targets, sizes))
        scatter(block, places, to, counts)


def scatter(block: memoryview, places: Sequence[int], targets: Sequence[int], sizes: Sequence[int]) -> None:
    """Copy to each address in `targets` as many bytes as `sizes` says, in order, from where in the block `places` says."""
    start = np.frombuffer(block, np.uint8).ctypes.data
    deque(map(memmove, targets, [start + place for place in places], sizes), maxlen=0)


def pour(tensor: Any, leaf: Leaf, verify: bool) -> None:
    """Read a large leaf piece by piece and copy each, as the tensor has another dtype or lies on a device.

    Both are contiguous, and the leaf's dtype is one of torch's.
    """
    dtype, itemsize = TORCH_DTYPES[leaf.spec.dtype], leaf.spec.dtype.itemsize
    flat = tensor.detach().view(-1)
    step = max(1, STAGE // itemsize)
    block = arena(min(step, len(flat)) * itemsize)
    for start in range(0, len(flat), step):
        count = min(step, len(flat) - start)
        into = block[: count * itemsize]
        leaf.storage.source.read_into([Read(leaf.storage, (leaf.spec.offset + start) * itemsize, into)], verify=verify)
        flat[start : start + count].copy_(torch.frombuffer(into, dtype=dtype))
