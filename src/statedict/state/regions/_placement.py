"""Placements: which boxes of a tensor a rank has if the tensor is sharded over a mesh, as PyTorch's DTensor defines it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from ._boxes import Box

Run = tuple[int, int]  # the first element along an axis, and the number of elements


class LocalBox(NamedTuple):
    """A box of the whole tensor, and where its elements are in this rank's local tensor."""

    whole: Box
    local: Box


class MeshPlacement(NamedTuple):
    """How a tensor is placed along one dimension of a mesh of ranks.

    Attributes:
        kind: `"Shard"`, `"StridedShard"`, `"Replicate"` or `"Partial"`.
        axis: the axis of the tensor that is divided; None if none is.
        factor: 1; for strided shards (tensor parallel with FSDP), into how many chunks the axis is divided later.
        ranks: the size of the mesh dimension.
        rank: this rank's coordinate on it.
        name: the name of the mesh dimension, or "".
    """

    kind: str
    axis: int | None
    factor: int
    ranks: int
    rank: int
    name: str = ""

    def __str__(self) -> str:
        axis = "" if self.axis is None else f"({self.axis})" if self.factor == 1 else f"({self.axis}, {self.factor})"
        return f"{self.kind}{axis} of {self.name} {self.ranks}".replace("  ", " ")


def placement_text(placements: Iterable[MeshPlacement]) -> str:
    """Return placements as text.

    >>> placement_text([MeshPlacement("Shard", 0, 1, 4, 2), MeshPlacement("Replicate", None, 1, 2, 0, "tp")])
    '[Shard(0) of 4, Replicate of tp 2]'
    """
    return f"[{', '.join(map(str, placements))}]"


@lru_cache(maxsize=4096)
def boxes_of(shape: tuple[int, ...], placements: tuple[MeshPlacement, ...]) -> tuple[list[LocalBox], tuple[int, ...]]:
    """Return the boxes of a rank (none if its shard is empty), and the shape of its local tensor.

    `placements`: in the order of the mesh dimensions.
    """
    axes: list[list[Run]] = [[(0, size)] for size in shape]
    for _, axis, factor, ranks, rank, _ in placements:
        if axis is None:
            continue
        # A strided shard takes its chunk of each of `factor` chunks: the mesh dimension to the right was split first.
        chunks = [_chunk(axes[axis], factor, number) for number in range(factor)]
        axes[axis] = _merged(run for chunk in chunks for run in _chunk(chunk, ranks, rank))
    local = tuple(sum(count for _, count in runs) for runs in axes)
    placed = [list(zip(runs, _starts(runs))) for runs in axes]
    boxes = []
    for corner in product(*placed):
        sizes = tuple(count for (_, count), _ in corner)
        boxes.append(LocalBox(Box(tuple(a for (a, _), _ in corner), sizes), Box(tuple(b for _, b in corner), sizes)))
    return boxes, local


def _chunk(runs: Sequence[Run], chunks: int, number: int) -> list[Run]:
    """Return chunk `number` of the elements in these runs, divided as `torch.chunk` does."""
    size = -(-sum(count for _, count in runs) // chunks)
    first, stop = size * number, size * (number + 1)
    found = []
    for (at, count), start in zip(runs, _starts(runs)):
        low, high = max(first - start, 0), min(stop - start, count)
        if low < high:
            found.append((at + low, high - low))
    return found


def _starts(runs: Sequence[Run]) -> list[int]:
    return [sum(count for _, count in runs[:number]) for number in range(len(runs))]


def _merged(runs: Iterable[Run]) -> list[Run]:
    """Return the runs, those that touch as one."""
    merged: list[Run] = []
    for at, count in runs:
        if merged and sum(merged[-1]) == at:
            merged[-1] = (merged[-1][0], merged[-1][1] + count)
        else:
            merged.append((at, count))
    return merged
