"""DTensors (tensors that are sharded over a device mesh) as Parts: which boxes of the whole tensor this rank has.

`torch.distributed.tensor` is not imported: a program that has DTensors has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch

from statedict.errors import LoadError
from statedict.state import Box, Leaf, Parts, Piece, Traits, region

from ._dtypes import DTYPES_OF_TORCH

Run = tuple[int, int]  # the first element along an axis, and the number of elements


class LocalBox(NamedTuple):
    """A box of the whole tensor, and where its elements are in this rank's local tensor."""

    whole: Box
    local: Box


def is_sharded(value: object) -> bool:
    """Whether a value is a DTensor, of any placement."""
    return any_sharded((value,))


def any_sharded(*columns: Iterable[object]) -> bool:
    """Whether any value in the columns is a DTensor."""
    module = sys.modules.get("torch.distributed.tensor")
    kind = getattr(module, "DTensor", None)  # None while the module is being imported
    return kind is not None and any(issubclass(each, kind) for column in columns for each in set(map(type, column)))


def local_of(tensor: Any) -> Any:
    """Return the local tensor of a DTensor, outside of its gradient's graph; it shares the memory."""
    with torch.no_grad():
        return tensor.to_local().detach()


def parts_of(tensor: Any, traits: Traits, leaf: Callable[[torch.Tensor], Leaf]) -> Parts:
    """Return the Parts of a DTensor; the pieces alias its local tensor."""
    local = leaf(local_of(tensor))
    shape = tuple(tensor.shape)
    boxes = [] if is_partial(tensor) else local_boxes(tensor)
    pieces = [Piece(each.whole, region(local, each.local)) for each in boxes]
    # A piece without elements, so that the leaf is not that of another tensor without elements.
    nothing = Box((0,) * len(shape), (0,) * len(shape))
    return Parts(DTYPES_OF_TORCH[tensor.dtype], shape, pieces or [Piece(nothing, local)], placement_of(tensor), traits)


def local_boxes(tensor: Any) -> list[LocalBox]:
    """Return the boxes that this rank has of a DTensor: none if its shard is empty, several for strided shards.

    Raises LoadError if the local tensor is pending a reduction, or does not have the shape of its placement.
    """
    if is_partial(tensor):
        raise LoadError(f"its placement is {placement_of(tensor)}: reduce it first (redistribute)")
    mesh = tensor.device_mesh
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return []
    splits = tuple(
        (placement.dim % max(tensor.ndim, 1), getattr(placement, "split_factor", 1), mesh.size(axis), coordinate[axis])
        for axis, placement in enumerate(tensor.placements)
        if hasattr(placement, "dim")
    )
    boxes, expected = _boxes(tuple(tensor.shape), splits)
    found = tuple(local_of(tensor).shape)
    if found != expected:
        raise LoadError(f"its local tensor has shape {list(found)}, but {placement_of(tensor)} gives {list(expected)}")
    return boxes


@lru_cache(maxsize=4096)
def _boxes(
    shape: tuple[int, ...], splits: tuple[tuple[int, int, int, int], ...]
) -> tuple[list[LocalBox], tuple[int, ...]]:
    """Return the boxes of a rank, and the shape of its local tensor. Splits: axis, split factor, ranks, and this rank."""
    axes: list[list[Run]] = [[(0, size)] for size in shape]
    for axis, factor, ranks, rank in splits:
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


def placement_of(tensor: Any) -> str:
    """Return the placement of a DTensor on its mesh as text: `[Shard(0) of 2, Replicate of 4]`."""
    mesh = tensor.device_mesh
    names = mesh.mesh_dim_names or [""] * mesh.ndim
    counts = [f"{name} {mesh.size(axis)}".strip() for axis, name in enumerate(names)]
    return f"[{', '.join(f'{_shown(placement)} of {count}' for placement, count in zip(tensor.placements, counts))}]"


def _shown(placement: Any) -> str:
    kind, axis = type(placement).__name__.lstrip("_"), getattr(placement, "dim", None)
    factor = getattr(placement, "split_factor", None)
    return kind if axis is None else f"{kind}({axis})" if factor is None else f"{kind}({axis}, {factor})"


def is_divided(tensor: Any) -> bool:
    """Whether a DTensor has elements, or summands of elements, that are not on every rank of its mesh."""
    mesh = tensor.device_mesh
    return any(not each.is_replicate() and mesh.size(axis) > 1 for axis, each in enumerate(tensor.placements))


def first_copies(tensor: Any) -> tuple[int, ...]:
    """Return the ranks that together have each element of a DTensor once: the first ones along replicated mesh axes."""
    which = tuple(0 if placement.is_replicate() else slice(None) for placement in tensor.placements)
    return tuple(tensor.device_mesh.mesh[which].flatten().tolist())


def is_partial(tensor: Any) -> bool:
    """Whether the ranks hold summands of the elements of a DTensor, not the elements."""
    return any(placement.is_partial() for placement in tensor.placements)


def empty_like(tensor: Any, dtype: torch.dtype) -> Any:
    """Return a new uninitialised DTensor with the mesh, placements and shape of another, on the mesh's device."""
    local = torch.empty(local_of(tensor).shape, dtype=dtype, device=tensor.device_mesh.device_type)
    return type(tensor).from_local(
        local, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
