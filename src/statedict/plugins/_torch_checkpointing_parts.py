"""How the metadata of torch_checkpointing describes the part of a tensor that a rank has.

A DTensor is described by its mesh (shape and ranks) and a placement for each mesh dimension. Other sharded tensors list the
boxes that a rank has (`default_tensor_v1`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from statedict.errors import FormatError
from statedict.formats import (
    Box,
    Leaf,
    LocalBox,
    MeshPlacement,
    Parts,
    boxes_of,
    parse_json,
    part_at,
    placement_text,
    tensors,
)

# `optimizer_transform_pre` marks the states that it makes.
BY_NAME = "_optimizer_state_format_version"
MOST_RANKS = 1 << 20
MOST_CHUNKS = 4096
MOST_DIMENSIONS = 64
# In bytes: of the path of a value, as JSON.
LONGEST = 4096


class RankGroup(NamedTuple):
    """The ranks for which a tensor has the same description, and that, as it is in the metadata."""

    ranks: frozenset[int]
    sharding: Any


class Described(NamedTuple):
    """The metadata's description of an item: the groups of each tensor, by its path as JSON, and the layout of each rank."""

    tensors: dict[str, list[RankGroup]]
    layouts: dict[int, Any]


class Sharding(NamedTuple):
    """Which part of a tensor a rank has: dtype and shape of the whole, boxes, and the local tensor's shape (if known)."""

    dtype: str
    shape: tuple[int, ...]
    boxes: Sequence[LocalBox]
    local: tuple[int, ...] | None
    text: str


class Shardings:
    """The descriptions in one metadata file."""

    def __init__(self) -> None:
        self._meshes: dict[int, dict[int, tuple[int, ...]]] = {}

    def of(self, packed: Any, rank: int) -> Sharding:
        """Return which part of a tensor a rank has."""
        packed = typed(packed, dict, "sharding_metadata")
        kind, data = packed.get("type"), typed(packed.get("data"), dict, "sharding_metadata")
        shape = numbers(data.get("global_shape"), "global_shape")
        dtype = str(data.get("dtype")).removeprefix("torch.")
        if kind == "default_tensor_v1":
            return Sharding(dtype, shape, _listed(data, shape), None, "listed boxes")
        if kind != "DTensorShardingMetadata":
            raise FormatError(f"the metadata describes a tensor as {shown(kind)}, which is not supported")
        mesh, placements = typed(data.get("mesh_spec"), dict, "mesh_spec"), data.get("placements")
        sizes = numbers(mesh.get("mesh_shape"), "mesh_shape")
        coordinate = self._coordinates(mesh, sizes).get(rank)
        if coordinate is None or not isinstance(placements, list) or len(placements) != len(sizes):
            raise FormatError(f"the metadata does not say where rank {rank} is on the mesh {list(sizes)}")
        found = tuple(_placement(*each, len(shape)) for each in zip(placements, sizes, coordinate))
        if prod(each.factor for each in found) > MOST_CHUNKS:
            raise FormatError(f"it is divided into more than {MOST_CHUNKS:,} chunks")
        return Sharding(dtype, shape, *boxes_of(shape, found), placement_text(found))

    def _coordinates(self, mesh: dict[str, Any], sizes: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Return the coordinate of each rank on a mesh, which many tensors share."""
        if id(mesh) not in self._meshes:
            ranks = numbers(mesh.get("mesh_data"), "mesh_data", MOST_RANKS)
            if prod(sizes) != len(ranks) or len(set(ranks)) != len(ranks):
                raise FormatError(
                    f"the mesh {list(sizes)} of the metadata does not have {len(ranks):,} different ranks"
                )
            steps = [prod(sizes[axis + 1 :]) for axis in range(len(sizes))]
            self._meshes[id(mesh)] = {
                rank: tuple(number // step % size for step, size in zip(steps, sizes))
                for number, rank in enumerate(ranks)
            }
        return self._meshes[id(mesh)]


def part_of(value: Any, sharding: Sharding, where: str) -> Any:
    """Return a value of one rank as the metadata describes it: a local tensor becomes Parts of the whole one."""
    dtype, shape, boxes, local, text = sharding
    if not isinstance(value, Leaf):
        if next((found for _, found in tensors(value)), None) is not value:
            raise FormatError(f"expected a tensor, found a {type(value).__name__}")
        return value
    expected = shape if isinstance(value, Parts) or local is None else local
    found = value.spec.shape if isinstance(value, Parts) or local is not None else shape
    if (value.spec.dtype.name, found) != (dtype, expected):
        raise FormatError(f"expected {dtype} {list(expected)}, found {value.spec.dtype} {list(value.spec.shape)}")
    if isinstance(value, Parts):
        if {piece.box for piece in value.pieces if prod(piece.box.sizes)} != {each.whole for each in boxes}:
            raise FormatError(f"expected its part for {text}, found {value.placement}")
        return value
    whole = [LocalBox(Box((0,) * len(shape), shape), Box((0,) * len(shape), shape))]
    return value if list(boxes) == whole else part_at(value, shape, boxes, text, value.traits, where)


def _listed(data: Mapping[str, Any], shape: tuple[int, ...]) -> list[LocalBox]:
    """Return the boxes of a rank that a description lists."""
    fields = [data.get(name) for name in ("global_offsets", "local_offsets", "local_sizes")]
    if not all(isinstance(field, (list, tuple)) for field in fields) or len(set(map(len, fields))) != 1:  # type: ignore[arg-type]
        raise FormatError("its offsets and sizes are not lists of equal length")
    rows = [[numbers(row_of, "an offset or size") for row_of in row] for row in zip(*fields)]
    if any(len(each) != len(shape) for row in rows for each in row):
        raise FormatError(f"its offsets and sizes do not have {len(shape)} dimensions")
    if any(at + size > whole for first, _, sizes in rows for at, size, whole in zip(first, sizes, shape)):
        raise FormatError(f"a part of it exceeds the whole, {list(shape)}")
    return [LocalBox(Box(whole, sizes), Box(local, sizes)) for whole, local, sizes in rows]


def _placement(placement: Any, size: int, rank: int, dimensions: int) -> MeshPlacement:
    found = placement if isinstance(placement, dict) else {}
    kind, axis, factor = found.get("type"), found.get("dim"), found.get("split_factor", 1)
    if kind == "Replicate":
        return MeshPlacement("Replicate", None, 1, size, rank)
    if kind not in ("Shard", "StridedShard") or type(axis) is not int or not -dimensions <= axis < dimensions:
        raise FormatError(f"its placement {shown(kind)} along axis {shown(axis)} is not supported")
    if type(factor) is not int or not 0 < factor <= MOST_CHUNKS:
        raise FormatError(f"it is divided into {shown(factor)} chunks")
    return MeshPlacement(kind, axis % dimensions, factor, size, rank)


def with_params(tree: Any) -> Any:
    """Return a tree; an optimizer state by the names of parameters gets them as `params`, which optimizers expect."""
    if isinstance(tree, dict) and tree.get(BY_NAME) == 1 and isinstance(groups := tree.get("param_groups"), list):
        for group in groups:
            if isinstance(group, dict) and isinstance(names := group.get("param_names"), list):
                group.setdefault("params", list(names))
    return tree


def shown(value: Any) -> str:
    """Return a value from the metadata for a message: text and small numbers, or the type of anything else."""
    if type(value) is str:
        return repr(value[:100])
    return str(value) if type(value) is int and abs(value) < 1 << 63 else f"a {type(value).__name__}"


def typed(value: Any, kind: type, what: str) -> Any:
    """Return a value from the metadata; raise FormatError if it does not have that type."""
    if type(value) is not kind:
        raise FormatError(f"expected a {kind.__name__} in the metadata, found a {type(value).__name__}", member=what)
    return value


def numbers(values: Any, what: str, most: int = MOST_DIMENSIONS) -> tuple[int, ...]:
    """Return a list of non-negative integers as a tuple; raise FormatError if it is anything else, or too long."""
    listed = isinstance(values, (list, tuple)) and len(values) <= most
    if not listed or not all(type(number) is int and 0 <= number < 1 << 63 for number in values):
        raise FormatError(f"{what} in the metadata is not a list of at most {most:,} non-negative integers")
    return tuple(values)


def described(entry: Any, item: str) -> Described:
    """Return what the metadata says of an item; raise FormatError if a value in it has the wrong type."""
    found = typed(entry, dict, item)
    paths, layouts = (typed(found.get(name), dict, item) for name in ("nested_path_to_metadata", "rank_to_layout_info"))
    tensors = {
        typed(path, str, item): [_group(group, item) for group in typed(groups, list, item)]
        for path, groups in paths.items()
    }
    numbers(tuple(layouts), "a rank", MOST_RANKS)
    return Described(tensors, layouts)


def _group(group: Any, item: str) -> RankGroup:
    found = typed(group, dict, item)
    return RankGroup(frozenset(numbers(found.get("ranks"), "a rank", MOST_RANKS)), found.get("sharding_metadata"))


def container_of(holder: dict[str, Any], item: str, text: str) -> tuple[Any, Any]:
    """Return the container of a value and its key; safetensors files join the keys of a path with dots."""
    steps = json_in(text.encode()[:LONGEST])
    if not isinstance(steps, list) or not all(type(step) in (str, int) for step in steps):
        raise FormatError("its name is not the path of a value")
    flat = ".".join(map(str, steps))
    container, key = holder, item
    for step in [flat] if isinstance(holder[item], dict) and flat in holder[item] else steps:
        container, key = container[key], step
        numbered = isinstance(container, list) and type(step) is int and 0 <= step < len(container)
        if not numbered and not (isinstance(container, dict) and step in container):
            raise FormatError("the file does not contain it")
    return container, key


def json_in(data: bytes) -> Any:
    """Return the value of a JSON text; raise FormatError if it is not valid."""
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not valid JSON: {error}") from error
