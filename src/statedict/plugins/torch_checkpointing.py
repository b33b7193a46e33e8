"""Read directories of Meta's torch_checkpointing. (docs/formats/torch-checkpointing.md)

An item (`model`, `optim`, `step` …) has one file for each rank that saved it: `<item>_<rank>.pt`, or what its layout says.
Files of torch.save contain DTensors, which describe themselves; safetensors files contain bare local tensors. `metadata.pkl`
says for items that can be resharded which part of each tensor a rank has, and where its file is. Synchronous saves do not
write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

from statedict.errors import FormatError, LimitError, UnknownFormatError
from statedict.formats import (
    Box,
    Checkpoint,
    Finding,
    Folder,
    Format,
    Leaf,
    Limits,
    LocalBox,
    MeshPlacement,
    Parts,
    boxes_of,
    join_ranks,
    open,
    part_at,
    placement_text,
    tensors,
)

METADATA = "metadata.pkl"
VERSION = "2.0"
OF_A_RANK = re.compile(r"(?P<item>[A-Za-z0-9_-]+)_(?P<rank>\d{1,7})\.(?:pt|safetensors|json)")
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz")
# Enough of a file to find the classes in its pickle, and the keys of the metadata.
HEAD = 1 << 16
LONGEST_PATH = 4096
MOST_RANKS = MOST_NUMBERS = 1 << 20
MOST_CHUNKS = 4096

Places = dict[int, str]  # the file of each rank


class Sharding(NamedTuple):
    """Which part of a tensor a rank has: dtype and shape of the whole, boxes, and the shape of the local tensor (if known)."""

    dtype: str
    shape: tuple[int, ...]
    boxes: Sequence[LocalBox]
    local: tuple[int, ...] | None
    text: str


def holds(folder: Folder) -> bool:
    """Return whether a folder was saved by torch_checkpointing, by its metadata, or by the names and kinds of its files."""
    if METADATA in folder.files:
        head = _head(folder, METADATA)
        return b"nested_path_to_metadata" in head or b"rank_to_layout_info" in head
    items = _named_items(folder)
    ranks = {frozenset(places) for places in items.values()}
    others = any(name.endswith(OTHER_WEIGHTS) and not OF_A_RANK.fullmatch(name) for name in folder.files)
    if len(items) < 2 or len(ranks) > 1 or others or min(ranks) != frozenset(range(len(min(ranks)))):
        return False
    # Files of several numbers are of ranks if they contain DTensors; otherwise they may be of steps.
    return ranks == {frozenset({0})} or any(b"torch.distributed.tensor" in _head(folder, p[0]) for p in items.values())


def read_checkpoint(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder; its roots are the items.

    An item that cannot be read is left out; if none can be, the error of the first one is raised.
    """
    reader = _Reader(folder, limits)
    items = {**reader.described_items(), **{k: v for k, v in _named_items(folder).items() if k not in reader.described}}
    tree: dict[str, Any] = {}
    failed: dict[str, Exception] = {}
    for item, places in items.items():
        try:
            tree[item] = reader.item(item, places)
        except LimitError:
            raise
        except (FormatError, OSError) as error:
            failed[item] = error
    if not tree:
        raise next(iter(failed.values()), UnknownFormatError("this directory contains no items", file=folder.path))
    return Checkpoint(
        folder.path,
        "torch-checkpointing",
        tree,
        size=sum(checkpoint.size for _, checkpoint in reader.opened),
        producer="torch_checkpointing",
        globals=list(dict.fromkeys(named for _, checkpoint in reader.opened for named in checkpoint.globals)),
        notes=reader.notes,
        checks=partial(_check, tree, reader, failed),
        unopened=failed,
    )


class _Reader:
    """Reads the items of one folder.

    Attributes:
        described: the items in the metadata.
        opened: the item and Checkpoint of each file.
        problems: files that are missing or cannot be read.
    """

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self.opened: list[tuple[str, Checkpoint]] = []
        self.notes: list[str] = []
        self.problems: list[Finding] = []
        self._folder = folder
        self._limits = limits
        self._meshes: dict[int, dict[int, tuple[int, ...]]] = {}
        self.described: dict[str, Any] = self._metadata() if METADATA in folder.files else {}

    def _metadata(self) -> dict[str, Any]:
        opened = open(self._folder.file(METADATA), limits=self._limits)
        self.opened.append((METADATA, opened))
        found = opened.object
        if not isinstance(found, dict) or found.get("version") != VERSION:
            version = found.get("version") if isinstance(found, dict) else None
            raise FormatError(
                f"unsupported version {version!r:.50} of the metadata; {VERSION!r} is supported", file=opened.path
            )
        return _typed(found.get("metadata"), dict, "metadata")

    def described_items(self) -> dict[str, Places]:
        """Return the files of the items in the metadata."""
        items: dict[str, Places] = {}
        owners: dict[str, str] = {}
        for item, entry in self.described.items():
            layouts = _typed(_typed(entry, dict, item).get("rank_to_layout_info"), dict, item)
            items[item] = {rank: _path(layouts.get(rank), item, rank) for rank in sorted(self._ranks(item))}
            for path in items[item].values():
                if owners.setdefault(path, item) != item or list(items[item].values()).count(path) > 1:
                    raise FormatError(f"the metadata gives {path!r} to several ranks or items", file=self._folder.path)
        return items

    def _ranks(self, item: str) -> set[int]:
        """Return the ranks that have tensors of an item, or all if it has no tensors."""
        entry = self.described[item]
        groups = [group for found in self._paths(item).values() for group in found]
        ranks = {rank for group in groups for rank in _typed(group.get("ranks"), tuple, item)} or set(
            entry["rank_to_layout_info"]
        )
        if not all(type(rank) is int and 0 <= rank < MOST_RANKS for rank in ranks):
            raise FormatError("a rank is not a non-negative integer", file=self._folder.path, member=item)
        return ranks

    def _paths(self, item: str) -> dict[str, list[Any]]:
        return _typed(self.described[item].get("nested_path_to_metadata"), dict, item)

    def item(self, item: str, places: Places) -> Any:
        """Return the value of an item, joined from the files of its ranks."""
        trees: list[Any] = []
        error: Exception | None = None
        for rank, path in places.items():
            try:
                tree = self._file(item, path)
            except LimitError:
                raise
            except (FormatError, OSError) as problem:
                error = error or problem
                what = "is missing" if isinstance(problem, FileNotFoundError) else f"cannot be read: {problem}"
                self.problems.append(Finding("error", item, f"{path}, the file of rank {rank}, {what}"))
                continue
            trees.append(self._place(item, rank, tree, path) if item in self.described else tree)
        if not trees:
            raise error or FormatError("no rank has a file of it", file=self._folder.path, member=item)
        several = len(places) > 1 and item not in self.described
        if several and any(path.endswith(".safetensors") for path in places.values()):
            raise FormatError(
                f"its {len(places):,} files do not say which part of each tensor they contain", file=self._folder.path,
                member=item, hint="torch_checkpointing writes this if the item has a resharder and the save is asynchronous",
            )  # fmt: skip
        if several and not any(isinstance(value, Parts) for _, value in tensors(trees[0])):
            self.notes.append(f"{item}: the values are those of the first of {len(places):,} ranks")
        return join_ranks(trees, f"{self._folder.path}: {item}")

    def _file(self, item: str, path: str) -> Any:
        """Return the content of a file."""
        *above, name = path.split("/")
        folder = self._folder
        for step in above:
            folder = folder.folder(step)
        file = folder.file(name)
        if name.endswith(".json"):
            if file.size > self._limits.json_bytes:
                raise self._limits.exceeded("json_bytes", f"JSON of {file.size:,} bytes").located(file=file.name)
            return _json(file.read(0, file.size), file.name)
        opened = open(file, limits=self._limits)
        self.opened.append((item, opened))
        return opened.object

    def _place(self, item: str, rank: int, tree: Any, path: str) -> Any:
        """Return the content of a rank's file with Parts in place of its local tensors, as the metadata describes them.

        Raises FormatError if the two contradict each other.
        """
        holder = {item: tree}
        for text, groups in self._paths(item).items():
            group = next((group for group in groups if rank in group["ranks"]), None)
            if group is not None:
                container, key = _found(holder, item, text)
                value, where = container[key], f"{self._folder.path_of(path)}: {text}"
                try:
                    sharding = self._sharding(_typed(group.get("sharding_metadata"), dict, text), rank)
                    container[key] = _part(value, sharding, where)
                except (FormatError, ValueError) as error:
                    raise FormatError(f"the metadata contradicts this tensor: {error}", file=where) from error
        return holder[item]

    def _sharding(self, packed: dict[str, Any], rank: int) -> Sharding:
        kind, data = packed.get("type"), _typed(packed.get("data"), dict, "sharding_metadata")
        shape = _numbers(data.get("global_shape"), "global_shape")
        dtype = str(data.get("dtype")).removeprefix("torch.")
        if kind == "default_tensor_v1":
            return Sharding(dtype, shape, _listed(data, len(shape)), None, "listed boxes")
        if kind != "DTensorShardingMetadata":
            raise FormatError(f"the metadata describes a tensor as {kind!r:.50}, which is not supported")
        mesh, placements = _typed(data.get("mesh_spec"), dict, "mesh_spec"), data.get("placements")
        sizes = _numbers(mesh.get("mesh_shape"), "mesh_shape")
        coordinate = self._coordinates(mesh, sizes).get(rank)
        if coordinate is None or not isinstance(placements, list) or len(placements) != len(sizes):
            raise FormatError(f"the metadata does not say where rank {rank} is on the mesh {list(sizes)}")
        names = mesh.get("mesh_dim_names") or ("",) * len(sizes)
        found = tuple(_placement(*each, len(shape)) for each in zip(placements, sizes, coordinate, map(str, names)))
        if prod(each.factor for each in found) > MOST_CHUNKS or len(found) < len(sizes):
            raise FormatError("the placements of the metadata do not fit its mesh")
        return Sharding(dtype, shape, *boxes_of(shape, found), placement_text(found))

    def _coordinates(self, mesh: dict[str, Any], sizes: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
        """Return the coordinate of each rank on a mesh, which many tensors share."""
        if id(mesh) not in self._meshes:
            ranks = _numbers(mesh.get("mesh_data"), "mesh_data")
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


def _part(value: Any, sharding: Sharding, where: str) -> Any:
    """Return a value of one rank as the metadata describes it: a local tensor becomes Parts of the whole one."""
    dtype, shape, boxes, local, text = sharding
    if not isinstance(value, Leaf):
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


def _found(holder: dict[str, Any], item: str, text: str) -> tuple[Any, Any]:
    """Return the container of a value and its key; safetensors files join the keys of a path with dots."""
    steps = _json(text.encode()[:LONGEST_PATH], text)
    flat = ".".join(map(str, steps)) if isinstance(steps, list) else None
    if flat is None or not all(type(step) in (str, int) for step in steps):
        raise FormatError(f"{text!r:.200} is not the path of a value", file=item)
    container, key = holder, item
    for step in [flat] if isinstance(holder[item], dict) and flat in holder[item] else steps:
        container, key = container[key], step
        inside = step in container if isinstance(container, dict) else (
            isinstance(container, list) and type(step) is int and 0 <= step < len(container)
        )  # fmt: skip
        if not inside:
            raise FormatError(
                "the metadata describes this tensor, which a rank's file does not contain", file=item, member=text
            )
    return container, key


def _listed(data: Mapping[str, Any], dimensions: int) -> list[LocalBox]:
    """Return the boxes of a rank that a description lists."""
    fields = [data.get(name) for name in ("global_offsets", "local_offsets", "local_sizes")]
    if not all(isinstance(field, (list, tuple)) for field in fields) or len(set(map(len, fields))) != 1:  # type: ignore[arg-type]
        raise FormatError("its offsets and sizes are not lists of equal length")
    rows = [[_numbers(numbers, "an offset or size") for numbers in row] for row in zip(*fields)]  # type: ignore[arg-type]
    if any(len(numbers) != dimensions for row in rows for numbers in row):
        raise FormatError(f"its offsets and sizes do not have {dimensions} dimensions")
    return [LocalBox(Box(whole, sizes), Box(local, sizes)) for whole, local, sizes in rows]


def _placement(placement: Any, size: int, rank: int, name: str, dimensions: int) -> MeshPlacement:
    found = placement if isinstance(placement, dict) else {}
    kind, axis, factor = found.get("type"), found.get("dim"), found.get("split_factor", 1)
    if kind == "Replicate":
        return MeshPlacement(kind, None, 1, size, rank, name)
    if kind not in ("Shard", "StridedShard") or type(axis) is not int or not -dimensions <= axis < dimensions:
        raise FormatError(f"its placement {found!r:.100} is not supported")
    if type(factor) is not int or not 0 < factor <= MOST_CHUNKS:
        raise FormatError(f"it is divided into {factor!r:.50} chunks")
    return MeshPlacement(kind, axis % dimensions, factor, size, rank, name)


def _named_items(folder: Folder) -> dict[str, Places]:
    """Return the files of each item, by their names, in the order of ranks."""
    found: dict[str, Places] = {}
    for match in filter(None, map(OF_A_RANK.fullmatch, folder.files)):
        found.setdefault(match["item"], {})[int(match["rank"])] = match[0]
    return {item: dict(sorted(places.items())) for item, places in found.items()}


def _path(layout: Any, item: str, rank: int) -> str:
    """Return the path of a rank's file; raise FormatError if it leads outside of the folder."""
    path = f"{item}_{rank}.pt" if layout is None else _typed(layout, dict, item).get("file_path")
    plain = isinstance(path, str) and len(path) <= LONGEST_PATH and path.isprintable() and not set(path) & {"\\", ":"}
    if not plain or any(step in ("", ".", "..") for step in path.split("/")):
        raise FormatError(f"the metadata places it in {path!r:.200}, which is not a file of the folder", member=item)
    return str(path)


def _typed(value: Any, kind: type, what: str) -> Any:
    if type(value) is not kind:
        raise FormatError(f"expected a {kind.__name__} in the metadata, found a {type(value).__name__}", member=what)
    return value


def _numbers(values: Any, what: str) -> tuple[int, ...]:
    plain = isinstance(values, (list, tuple)) and all(
        type(number) is int and 0 <= number < 1 << 63 for number in values
    )
    if not plain or len(values) > MOST_NUMBERS:
        raise FormatError(f"{what} in the metadata is not a list of non-negative integers")
    return tuple(values)


def _json(data: bytes, file: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"it is not valid JSON: {error}", file=file) from error


def _head(folder: Folder, name: str) -> bytes:
    file = folder.file(name)
    return file.read(0, min(file.size, HEAD))


def _check(tree: Any, reader: _Reader, failed: Mapping[str, Exception]) -> Iterator[Finding]:
    for item, error in failed.items():
        yield Finding("error", item, f"cannot be read: {error}")
    yield from reader.problems
    for path, value in tensors(tree):
        if isinstance(value, Parts):
            yield Finding("error", path, "parts of this tensor are missing")
    for item, checkpoint in reader.opened:
        for finding in checkpoint.verify():
            if finding.level != "note" and finding.where != "imports":
                yield finding._replace(where=f"{item}/{finding.where}", text=f"{checkpoint.path}: {finding.text}")


FORMAT = Format("torch-checkpointing", read_checkpoint, holds=holds)
