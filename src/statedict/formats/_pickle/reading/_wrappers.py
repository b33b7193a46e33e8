"""Tensors in pickles that wrap others: DTensors become Parts, others Compounds.

For a DTensor, torch.save writes the local tensor and a DTensorSpec: the shape of the whole tensor, the mesh with the
coordinate of the rank that saved it, and a placement for each mesh dimension. All of it is read as inert data; no process
group is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from statedict.errors import FormatError
from statedict.state import (
    Compound,
    DType,
    Leaf,
    MeshPlacement,
    Opaque,
    Parts,
    Traits,
    boxes_of,
    part_at,
    placement_text,
)

from .._recipe import RecipeError, take_apart
from .._values import TorchConstant
from ._machine import Args, Machine, Unfit
from ._tensors import counts, flag, refuse

CLASSES = {
    ("torch.distributed.tensor", "DTensor"),
    ("torch.distributed.tensor._api", "DTensor"),
    ("torch.distributed._tensor", "DTensor"),
    ("torch.distributed._tensor.api", "DTensor"),
}
# The other names in a DTensor's pickle; all are on PyTorch's own list for weights_only=True.
HARMLESS = CLASSES | {
    ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch.distributed.tensor._dtensor_spec", "DTensorSpec"),
    ("torch.distributed.tensor._dtensor_spec", "TensorMeta"),
    ("torch.distributed.tensor._dtensor_spec", "ShardOrderEntry"),
    ("torch.distributed.device_mesh", "DeviceMesh"),
    ("torch.distributed._mesh_layout", "_MeshLayout"),
    ("torch.distributed._mesh_layout", "_FlatLayout"),
    ("torch.distributed.tensor.placement_types", "Shard"),
    ("torch.distributed.tensor.placement_types", "_StridedShard"),
    ("torch.distributed.tensor.placement_types", "Replicate"),
    ("torch.distributed.tensor.placement_types", "Partial"),
}
SPEC = "DTensorSpec"
KINDS = ("Shard", "_StridedShard", "Replicate")
# Device meshes have at most 5 dimensions; a strided shard has a chunk for each rank of another dimension.
MOST_DIMENSIONS, MOST_CHUNKS, MOST_RANKS = 16, 1024, 1 << 24
PIECE_BYTES = 512
LONGEST_NAME = 64


def wrapper(m: Machine, kind: Opaque, inner: Args, state: Any) -> Compound | Parts:
    """Return the value of `_rebuild_wrapper_subclass`; raises Unfit if its attributes are not plain data."""
    if len(inner) != 8:
        raise Unfit
    of, dtype, size, stride, offset, layout, _, requires_grad = inner
    strided = type(layout) is TorchConstant and layout.kind == "layout"
    if of is not kind or type(dtype) is not DType or not strided:
        raise Unfit
    shape, strides = counts(size, "size", m.limits), counts(stride, "stride", m.limits)
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        refuse("its offset or its strides are not valid")
    if (kind.module, kind.name) in CLASSES:
        return _parts_from(m, dtype, shape, state, flag(requires_grad))
    try:
        outer = (dtype, shape, strides, offset, layout.name)
        return take_apart(f"{kind.module}:{kind.name}", outer, flag(requires_grad), state, charge=m.charge)
    except RecipeError:
        raise Unfit from None


def _parts_from(m: Machine, dtype: DType, shape: tuple[int, ...], state: Any, requires_grad: bool) -> Parts:
    """Return the Parts of a DTensor that has this state. Raises Unfit if the state is not that of a DTensor.

    Raises FormatError if it contradicts itself: the local tensor does not have the shape of its placement.
    """
    attributes = {key: value for part in state if part for key, value in part.items()} if _is_state(state) else {}
    local, spec = attributes.get("_local_tensor"), _fields(attributes.get("_spec"), SPEC)
    mesh, placements = _fields(spec.get("mesh"), "DeviceMesh"), spec.get("placements")
    sizes, ranks = _sizes(mesh), mesh.get("_coordinate_on_dim")
    if type(local) is not Leaf or type(placements) is not tuple or not sizes or not isinstance(ranks, (list, tuple)):
        raise Unfit
    if not len(sizes) == len(ranks) == len(placements) <= MOST_DIMENSIONS:
        raise Unfit
    names = mesh.get("_mesh_dim_names") or mesh.get("mesh_dim_names")
    if type(names) is not tuple or len(names) != len(sizes) or not all(map(_is_name, names)):
        names = ("",) * len(sizes)
    found = [_placement(*each, len(shape)) for each in zip(placements, sizes, ranks, names)]
    known = [each for each in found if each is not None]
    if len(known) < len(found) or prod(each.factor for each in known) > MOST_CHUNKS:
        raise Unfit
    text = placement_text(known)
    boxes, expected = boxes_of(shape, tuple(known))
    if (local.spec.dtype, local.spec.shape) != (dtype, expected):
        raise FormatError(
            f"the local tensor of a DTensor of {dtype} {list(shape)} {text} should be {dtype} {list(expected)}, but it is "
            f"{local.spec.dtype} {list(local.spec.shape)}"
        )
    m.charge(PIECE_BYTES * len(boxes))
    traits = Traits(parameter=attributes.get("_is_param") is True, requires_grad=requires_grad)
    where = getattr(local.storage.source, "name", "")
    return part_at(local, shape, boxes, text, traits, where)


def _is_name(name: Any) -> bool:
    """Whether a value can be shown as the name of a mesh dimension."""
    return type(name) is str and len(name) <= LONGEST_NAME and name.isprintable()


def _is_state(state: Any) -> bool:
    """Whether a state is the pair of a `__dict__` and the values of `__slots__`."""
    return type(state) is tuple and len(state) == 2 and all(type(part) is dict for part in state if part is not None)


def _placement(placement: Any, size: int, rank: Any, name: str, dimensions: int) -> MeshPlacement | None:
    fields = placement.attributes() if type(placement) is Opaque else {}
    if type(placement) is not Opaque or placement.name not in KINDS or type(rank) is not int or not 0 <= rank < size:
        return None
    kind = placement.name.lstrip("_")
    if kind == "Replicate":
        return MeshPlacement(kind, None, 1, size, rank, name)
    axis, factor = fields.get("dim"), fields.get("split_factor", 1)
    if type(axis) is not int or not -dimensions <= axis < dimensions or type(factor) is not int or factor < 1:
        return None
    return MeshPlacement(kind, axis % dimensions, factor, size, rank, name)


def _sizes(mesh: Mapping[str, Any]) -> Sequence[int]:
    """Return the size of each mesh dimension; none if they are not valid. PyTorch has written them in three ways."""
    ranks = mesh.get("mesh")
    if isinstance(ranks, Leaf):
        sizes: list[Any] = list(ranks.spec.shape)
    else:
        layout = _fields(mesh.get("_layout"), "_MeshLayout")
        axes, shape = layout.get("axes"), layout.get("shape")
        flat = [_fields(axis, "_FlatLayout").get("shape") for axis in axes] if type(axes) is tuple else None
        sizes = list(map(_product, flat or (shape if type(shape) is tuple else [shape])))
    return sizes if all(type(size) is int and 0 < size <= MOST_RANKS for size in sizes) else []


def _product(shape: Any) -> int:
    """Return the product of the numbers in a tuple; 0 if it has anything else."""
    numbers = shape if type(shape) is tuple else (shape,)
    return prod(numbers) if all(type(number) is int and 0 < number <= MOST_RANKS for number in numbers) else 0


def _fields(value: Any, kind: str) -> dict[str, Any]:
    return value.attributes() if type(value) is Opaque and value.name == kind else {}
