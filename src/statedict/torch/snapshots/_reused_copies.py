"""Copy tensors into the memory of earlier copies of them, for asynchronous saves.

The layout of the copies is known, so only the tensors are examined. Training waits for this copy, which takes half the time
of `copies` into the same memory (benchmarks/stall.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from math import prod
from typing import NamedTuple

import torch

from statedict.state import copy_rows

from ..tensors._copy_pairs import addresses, is_watched
from ..tensors._kinds import Kind, Kinds, kinds_of
from ._shared_memory import overlap

# Bytes. Tensors up to this size are copied as rows of bytes.
ROW = 4096
_OFFSET = torch.Tensor.storage_offset


class Memory(NamedTuple):
    """Earlier copies.

    Attributes:
        tensors: the copies.
        kinds: the kinds of the tensors that were copied.
        places, sizes: the address and the size in bytes of each copy.
    """

    tensors: list[torch.Tensor]
    kinds: Kinds
    places: list[int]
    sizes: list[int]


def remember(tensors: Sequence[torch.Tensor], made: list[torch.Tensor]) -> Memory | None:
    """Return the copies `made` of `tensors` as memory for `refill`; None if a tensor has gaps or shares memory."""
    kinds = kinds_of(tensors)
    if kinds is None or not all(map(_is_dense, kinds.kinds)) or not _are_apart(tensors, kinds):
        return None
    alike = kinds_of(made)
    # A tensor that overlaps itself can also fill its memory; its copy does not overlap, and has other strides.
    if (
        alike is None
        or alike.which != kinds.which
        or [k.strides for k in alike.kinds] != [k.strides for k in kinds.kinds]
    ):
        return None
    return Memory(made, kinds, addresses(made), _sizes(kinds))


def refill(memory: Memory, tensors: Sequence[torch.Tensor]) -> bool:
    """Overwrite the copies with the tensors; if these have another layout than before, change nothing and return False."""
    if len(tensors) != len(memory.tensors) or is_watched() or kinds_of(tensors) != memory.kinds:
        return False
    if not _are_apart(tensors, memory.kinds):
        return False
    small = [size <= ROW for size in memory.sizes]
    large = [size > ROW for size in memory.sizes]
    with torch.inference_mode(False), torch.no_grad():
        torch.autograd.graph.increment_version(memory.tensors)
        copy_rows(*(list(compress(column, small)) for column in (addresses(tensors), memory.places, memory.sizes)))
        if any(large):
            torch._foreach_copy_(list(compress(memory.tensors, large)), list(compress(tensors, large)))
    return True


def _is_dense(kind: Kind) -> bool:
    """Whether a tensor has elements, and they fill the memory from the first to the last without gaps."""
    reach = 1 + sum((count - 1) * step for count, step in zip(kind.shape, kind.strides))
    return 0 < prod(kind.shape) == reach


def _are_apart(tensors: Sequence[torch.Tensor], kinds: Kinds) -> bool:
    """Whether no two tensors overlap, and each begins at the start of a storage. (The address of a freed storage is 0.)"""
    places = addresses(tensors)
    return 0 not in places and not any(map(_OFFSET, tensors)) and not overlap(places, _sizes(kinds))


def _sizes(kinds: Kinds) -> list[int]:
    sizes = [prod(kind.shape) * kind.dtype.itemsize for kind in kinds.kinds]
    return list(map(sizes.__getitem__, kinds.which))
