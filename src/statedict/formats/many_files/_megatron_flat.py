"""Tensors that Megatron-core before 0.16 stored flat, for the distributed optimizer (`fully_sharded_model_space`).

There a rank has a range of the elements of its part of a tensor, and not a box. So a tensor of shape [X, Y], of which
every rank has a part of shape [x, y], is stored with the shape [X/x, Y/y, x·y]: the last axis is the flat part, and this
axis is divided among ranks. The metadata has the shape [X, Y] (`mcore_data`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from operator import mul

from statedict.state import Box

from ._assemble import Chunk

ORIGINAL = "nd_reformulated_orig_global_shape"


def original_shape(mcore_data: object, name: str) -> object:
    """Return the shape of a tensor that was stored flat, as the metadata says; None for any other tensor."""
    entry = mcore_data.get(name) if isinstance(mcore_data, Mapping) else None
    return entry.get(ORIGINAL) if isinstance(entry, Mapping) else None


def part_shape(stored: Sequence[int], original: Sequence[int], chunks: int) -> tuple[int, ...] | None:
    """Return the shape of each part; None if the two shapes contradict each other, or there are more parts than chunks.

    >>> part_shape((2, 2, 64), (2, 128), 4)
    (1, 64)
    """
    grid = stored[:-1]
    if len(grid) != len(original) or not 0 < prod(grid) <= chunks:
        return None
    sizes = tuple(whole // count for whole, count in zip(original, grid))
    fits = tuple(map(mul, sizes, grid)) == tuple(original) and prod(sizes) == stored[-1]
    return sizes if fits else None


def parts(
    stored: Sequence[int], sizes: tuple[int, ...], chunks: Sequence[Chunk]
) -> list[tuple[Box, tuple[Chunk, ...]]]:
    """Return the box of each part in the original tensor, with its chunks relative to the part."""
    grid = stored[:-1]
    inside: dict[tuple[int, ...], list[Chunk]] = {cell: [] for cell in product(*map(range, grid))}
    for (offsets, shape), location in chunks:
        if prod(shape):
            inside[offsets[:-1]].append(Chunk(Box((0,) * len(grid) + offsets[-1:], shape), location))
    return [(Box(tuple(map(mul, cell, sizes)), sizes), tuple(found)) for cell, found in inside.items()]
