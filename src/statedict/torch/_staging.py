"""Small tensors are read many at a time: into one staging buffer, and copied from there in one call.

In go pairs of a tensor and the leaf for it whose elements lie alike. Reading straight into 32,000 tensors' own memory would
need a view of each and a backup of each, because a read may fail half-way; here the read of a stage is over when its copy
begins, and that copy cannot fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from statedict.state import Leaf, Read, arena

from ._dtypes import TORCH_DTYPES
from ._pairs import copy_all

# Tensors below this are staged: a copy of 64 KiB takes as long as the system call that it saves.
SMALL = 64 << 10
# What a stage holds at once.
STAGE = 8 << 20
# As a cache line: every dtype can be viewed there.
ALIGNMENT = 64

Pair = tuple[Any, Leaf]
ReadAll = Callable[[Sequence[Read]], None]


def stages(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The pairs in runs that fit the buffer, in order."""
    runs: list[list[Pair]] = []
    size = STAGE
    for pair in pairs:
        nbytes = pair[1].spec.nbytes
        if size + nbytes > STAGE:
            runs.append([])
            size = 0
        runs[-1].append(pair)
        size += nbytes
    return runs


def fill(stage: Sequence[Pair], read: ReadAll) -> None:
    """Read the leaves' elements, all of them, and only then write the tensors."""
    groups: dict[tuple[Any, ...], list[Pair]] = {}
    for pair in stage:
        spec = pair[1].spec
        groups.setdefault((spec.dtype, spec.shape), []).append(pair)
    total = sum(_room(group) for group in groups.values())
    block = arena(total)
    reads: list[Read] = []
    start = 0
    for group in groups.values():
        reads += _reads(group, block[start : start + _room(group)])
        start += _room(group)
    read(reads)
    whole = torch.frombuffer(block, dtype=torch.uint8)
    start = 0
    tensors: list[Any] = []
    values: list[Any] = []
    for group in groups.values():
        tensors += [tensor for tensor, _ in group]
        values += _views(group, whole[start : start + _room(group)])
        start += _room(group)
    copy_all(tensors, values)


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


def _room(group: Sequence[Pair]) -> int:
    nbytes = len(group) * group[0][1].spec.nbytes
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _reads(group: Sequence[Pair], block: memoryview) -> list[Read]:
    nbytes, itemsize = group[0][1].spec.nbytes, group[0][1].spec.dtype.itemsize
    places = range(0, len(group) * nbytes, nbytes)
    return [
        Read(leaf.storage, leaf.spec.offset * itemsize, block[place : place + nbytes])
        for (_, leaf), place in zip(group, places)
    ]


def _views(group: Sequence[Pair], block: torch.Tensor) -> Sequence[torch.Tensor]:
    """A tensor for each pair, over consecutive bytes. One `unbind` for all of a shape takes 0.6 µs each."""
    tensor = group[0][0]
    used = block[: len(group) * group[0][1].spec.nbytes]
    return used.view(tensor.dtype).view(len(group), *tensor.shape).unbind(0)
