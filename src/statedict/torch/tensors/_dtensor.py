"""DTensors (tensors that are sharded over a device mesh) as Parts: which boxes of the whole tensor this rank has.

`torch.distributed.tensor` is not imported: a program that has DTensors has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from statedict.errors import LoadError
from statedict.state import Box, Leaf, LocalBox, MeshPlacement, Parts, Piece, Traits, boxes_of, placement_text, region

from ._dtypes import DTYPES_OF_TORCH


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


def local_boxes(tensor: Any, coordinate: Sequence[int] | None = None) -> list[LocalBox]:
    """Return the boxes that this rank has of a DTensor: none if its shard is empty, several for strided shards.

    `coordinate`: the place on the mesh of another rank, whose boxes are wanted. Raises LoadError if the local tensor is
    pending a reduction, or does not have the shape of its placement.
    """
    if is_partial(tensor):
        raise LoadError(f"its placement is {placement_of(tensor)}: reduce it first (redistribute)")
    mesh = tensor.device_mesh
    place = mesh.get_coordinate() if coordinate is None else coordinate
    if place is None:
        return []
    boxes, expected = boxes_of(tuple(tensor.shape), placements_of(tensor, place))
    if coordinate is None and (found := tuple(local_of(tensor).shape)) != expected:
        raise LoadError(f"its local tensor has shape {list(found)}, but {placement_of(tensor)} gives {list(expected)}")
    return boxes


def placements_of(tensor: Any, coordinate: Sequence[int] | None = None) -> tuple[MeshPlacement, ...]:
    """Return the placements of a DTensor on its mesh, for the rank at `coordinate` (default: this rank's, or 0)."""
    mesh = tensor.device_mesh
    names = mesh.mesh_dim_names or ("",) * mesh.ndim
    ranks = coordinate or mesh.get_coordinate() or (0,) * mesh.ndim
    return tuple(
        MeshPlacement(
            type(placement).__name__.lstrip("_"),
            placement.dim % max(tensor.ndim, 1) if hasattr(placement, "dim") else None,
            getattr(placement, "split_factor", 1),
            mesh.size(dimension),
            ranks[dimension],
            names[dimension],
        )
        for dimension, placement in enumerate(tensor.placements)
    )


def coordinates_of(mesh: Any) -> dict[int, tuple[int, ...]]:
    """Return the coordinate on a mesh of each of its ranks."""
    return {int(rank): place for place, rank in np.ndenumerate(mesh.mesh.numpy())}


def placement_of(tensor: Any) -> str:
    """Return the placement of a DTensor on its mesh as text: `[Shard(0) of 2, Replicate of 4]`."""
    return placement_text(placements_of(tensor))


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
