"""Small tensors are read many at a time: into one staging buffer, and copied from there in one call.

In go pairs of a tensor and the leaf for it whose elements lie alike. Reading straight into 32,000 tensors' own memory would
need a view of each and a backup of each, because a read may fail half-way; here the read of a stage is over when its copy
begins, and that copy cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from statedict.state import Leaf, Read, arena, gather

from ._dtypes import TORCH_DTYPES
from ._library import over
from ._pairs import copy_all

# Tensors below this are staged: a copy of 64 KiB takes as long as the system call that it saves.
SMALL = 64 << 10
# What a stage holds at once, and what a file may have between two tensors that are read in one go.
STAGE = 8 << 20
BETWEEN = 192

Pair = tuple[Any, Leaf]
ReadAll = Callable[[Sequence[Read]], None]


def stages(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """The pairs in runs that fit the buffer, in order."""
    sizes = [leaf.spec.nbytes + BETWEEN for _, leaf in pairs]
    if sum(sizes) <= STAGE:
        return [pairs] if pairs else []
    runs: list[list[Pair]] = []
    room = 0
    for pair, size in zip(pairs, sizes):
        if size > room:
            runs.append([])
            room = STAGE
        runs[-1].append(pair)
        room -= size
    return [*runs]


def fill(stage: Sequence[Pair]) -> None:
    """Read the leaves' elements, all of them, and only then write the tensors."""
    specs = [leaf.spec for _, leaf in stage]
    starts = [spec.offset * spec.dtype.itemsize for spec in specs]
    memory = gather([leaf.storage for _, leaf in stage], starts, [spec.nbytes for spec in specs])
    copy_all([tensor for tensor, _ in stage], list(map(over, specs, memory)))


def pour(tensor: Any, leaf: Leaf, read: ReadAll) -> None:
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
        read([Read(leaf.storage, (leaf.spec.offset + start) * itemsize, into)])
        flat[start : start + count].copy_(torch.frombuffer(into, dtype=dtype))
