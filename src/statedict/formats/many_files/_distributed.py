"""Read directories of torch.distributed.checkpoint: `.metadata`, and `*.distcp` files of chunks.

Theory of operation. `.metadata` is a pickle of a `Metadata` object, read here as inert data. For each flat name it has
a description (`state_dict_metadata`: dtype, size and chunks of a tensor, or just bytes), the location of each chunk
(`storage_data`: file, offset, length), and the nesting of flat names (`planner_data`: `"opt.state.0.step"` is `("opt",
"state", "0", "step")`). Each chunk, and each object other than a tensor, is a separate torch zip inside a `.distcp`
file. So tensors are known from the metadata alone, and their chunks are opened when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from math import prod
from typing import Any

from statedict.files import File, Folder, Location, is_plain_name
from statedict.state import Absent, Box, DType, Leaf, Opaque, Piece, contiguous, join_pieces, tiling_problem

from ...errors import FormatError, LimitError
from .._limits import LIMITS, Limits
from .._names import METADATA
from .._pickle import Import, Parsed, StorageId, TypedStorage, parse
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..checkpoint._walk import leaves
from ..storages._describe import shown
from ..storages._shape import check_addressable
from ._assemble import Chunk, ChunkSource, Sharded
from ._flattened import original_shape, part_shape, parts
from ._nesting import NamedValue, Steps, nested
from ._ranks import joined
from ._stored_files import StoredFiles
from ._training import with_roots

MOST_STEPS = 10_000
METADATA_OF_ALL = ".metadata"
# Megatron-core before 0.16 has a class of its own.
METADATA_CLASSES = ("Metadata", "MCoreMetadata")
# The modules whose classes describe the checkpoint in that file.
DESCRIBING = {f"torch.distributed.checkpoint.{name}" for name in ("metadata", "filesystem", "planner")}


def read_distributed(folder: Folder, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint of a folder with `.metadata`; tensors are read on demand.

    Optimizer states get the form of `Optimizer.state_dict`, and the model its own root (`_training`).
    """
    checkpoint = read_as_saved(folder, limits)
    checkpoint.object = with_roots(checkpoint.object)
    return checkpoint


def read_as_saved(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder with `.metadata`, with the tree as it was saved.

    Several metadata files (`__0.metadata` …) come from ranks that saved without collectives (`use_collectives=False`):
    their chunks are joined, and of other values that of the first rank is used.

    A value whose file is missing or damaged is `Absent`.
    """
    names = [name for name in folder.files if METADATA.fullmatch(name)]
    names = [METADATA_OF_ALL] if METADATA_OF_ALL in names else sorted(names, key=lambda name: (len(name), name))
    every = [_metadata(folder.file(name), limits) for name in names]
    path = folder.path_of(names[0])
    fields = joined([_fields(each.value, METADATA_CLASSES, folder.path_of(name)) for name, each in zip(names, every)])
    described = sum(map(folder.size, names))
    source = ChunkSource(folder, limits)
    reader = _MetadataReader(folder, path, described, source, fields, limits)
    tree = nested([reader.entry(name, record) for name, record in reader.records.items()], path)
    return Checkpoint(
        folder.path,
        "distributed",
        tree,
        size=reader.files.size + described,
        producer="torch.distributed.checkpoint",
        globals=_once([*(_judged(named) for parsed in every for named in parsed.globals), *reader.globals]),
        more_globals=source.imports,
        notes=[*_of_first_rank(len(names)), *reader.files.notes()],
        checks=lambda: chain(reader.files.check(), _check(tree)),
    )


def _of_first_rank(ranks: int) -> list[str]:
    text = f"{ranks} ranks saved without collectives: values other than tensors are those of the first rank"
    return [text] if ranks > 1 else []


def _metadata(file: File, limits: Limits) -> Parsed:
    if file.size > limits.pickle_bytes:
        raise limits.exceeded("pickle_bytes", f"metadata of {file.size:,} bytes").located(file=file.name)
    return parse(file.read(0, file.size), storage=_no_storage, file=file.name, limits=limits)


class _MetadataReader:
    """Reads the metadata of one directory; every value is checked before use."""

    def __init__(
        self,
        folder: Folder,
        path: str,
        size: int,
        source: ChunkSource,
        metadata: Mapping[str, Any],
        limits: Limits,
    ) -> None:
        self.path = path
        self._folder = folder
        self.globals: list[Import] = []
        self._source = source
        self._limits = limits
        self._nesting = metadata.get("planner_data")
        self._mcore_data = metadata.get("mcore_data")
        # Each step becomes a dict; real names have a handful.
        self._steps_left = MOST_STEPS + size // 8
        self.records = self._mapping(metadata, "state_dict_metadata")
        self.locations = self._index(self._mapping(metadata, "storage_data"))
        self.files = StoredFiles(folder, chain.from_iterable(places.values() for places in self.locations.values()))
        # The chunks of plain values are read in one batch.
        count = max(len(self.records), 1)
        self._inside = replace(
            limits, value_bytes=limits.value_bytes // count, copied_bytes=limits.copied_bytes // count
        )

    def entry(self, name: object, record: object) -> NamedValue:
        if not isinstance(name, str):
            raise self._wrong(f"a name is {shown(name)}, not text")
        kind = record.name if isinstance(record, Opaque) else type(record).__name__
        if kind not in VALUES:
            raise self._wrong(f"its metadata has the unknown type {kind}", name)
        return NamedValue(name, self._steps(name), VALUES[kind](self, name, _fields(record, kind, self.path)))

    def tensor(self, name: str, record: Mapping[str, Any]) -> Leaf:
        """Return a tensor from the metadata alone, without opening a file."""
        properties = record.get("properties")
        state = properties.state if isinstance(properties, Opaque) else None
        found = state[0] if isinstance(state, tuple) and state else None
        shape = self._numbers(record.get("size"), name)
        if not isinstance(found, DType):
            raise self._wrong("its dtype is missing", name)
        check_addressable(shape, found.itemsize, file=self.path, member=name)
        described = record.get("chunks")
        if not isinstance(described, list):
            raise self._wrong("its chunks are missing", name)
        chunks = tuple(self._chunk(name, chunk, found) for chunk in described)
        problem = tiling_problem(shape, [chunk.box for chunk in chunks])
        if problem is not None:
            raise self._wrong(f"its {len(chunks)} chunks do not cover the tensor exactly: {problem}", name)
        absent = next(filter(None, (self._absent(name, chunk.location) for chunk in chunks)), None)
        return absent or self._unflattened(Sharded(name, found, shape, chunks))

    def plain(self, name: str, record: Mapping[str, Any]) -> object:
        """Read a value other than a tensor immediately: the tree is built from these values."""
        location = self.locations.get(name, {}).get(None)
        if location is None:
            raise self._wrong("the metadata has no storage location for it", name)
        absent = self._absent(name, location)
        if absent is not None:
            return absent
        try:
            opened = self._source.open(location, self._inside)
        except LimitError:
            raise
        except FormatError as error:
            return self._absent(name, location, f"is damaged: {error.reason}")
        self.globals += opened.globals
        return opened.object

    def _unflattened(self, stored: Sharded) -> Leaf:
        """Return the leaf of a tensor; of one that was stored flat, in its original shape."""
        name, dtype, shape, chunks = stored
        said = original_shape(self._mcore_data, name)
        if said is None:
            return self._source.leaf(stored)
        original = self._numbers(said, name)
        sizes = part_shape(shape, original, len(chunks))
        if sizes is None or any(chunk.box.sizes[:-1] != (1,) * len(sizes) for chunk in chunks):
            raise self._wrong(
                f"its shape {list(shape)} is not that of a tensor of {list(original)} in flat parts", name
            )
        pieces = []
        for box, inside in parts(shape, sizes, chunks):
            flat = self._source.leaf(
                Sharded(f"{name} at {box.offsets}", dtype, (*(1,) * len(sizes), shape[-1]), inside)
            )
            pieces.append(Piece(box, Leaf(contiguous(dtype, sizes), flat.storage)))
        return join_pieces(dtype, original, pieces)

    def _absent(self, name: str, location: Location, problem: str | None = None) -> Absent | None:
        problem = problem or self.files.problem(location)
        return None if problem is None else Absent(name, self._folder.path_of(location.file), problem)

    def _chunk(self, name: str, described: object, dtype: DType) -> Chunk:
        fields = _fields(described, "ChunkStorageMetadata", self.path)
        offsets, sizes = (self._numbers(fields.get(key), name) for key in ("offsets", "sizes"))
        location = self.locations.get(name, {}).get(offsets)
        if location is None:
            raise self._wrong(f"the metadata has no storage location for its chunk at {list(offsets)}", name)
        nbytes = prod(sizes) * dtype.itemsize
        if nbytes > self._limits.expansion * location.nbytes:
            raise self._wrong(
                f"a chunk of {nbytes:,} bytes is stored in only {location.nbytes:,} bytes of the file", name
            )
        return Chunk(Box(offsets, sizes), location)

    def _index(self, storage_data: Mapping[Any, Any]) -> dict[str, dict[tuple[int, ...] | None, Location]]:
        """Return the storage locations of each name, by the offsets of the chunk (None for values without chunks)."""
        locations: dict[str, dict[tuple[int, ...] | None, Location]] = {}
        for key, info in storage_data.items():
            index = _fields(key, "MetadataIndex", self.path)
            name, offset = index.get("fqn"), index.get("offset")
            if not isinstance(name, str):
                raise self._wrong(f"the name of a stored item is {shown(name)}, not text")
            at = None if offset is None else self._numbers(offset, name)
            locations.setdefault(name, {}).setdefault(
                at, self._location(name, _fields(info, "_StorageInfo", self.path))
            )
        return locations

    def _location(self, name: str, info: Mapping[str, Any]) -> Location:
        file, start, nbytes = info.get("relative_path"), info.get("offset"), info.get("length")
        if info.get("transform_descriptors"):
            raise self._wrong(
                f"it is stored through {shown(info['transform_descriptors'])}, which cannot be reversed", name
            )
        if not isinstance(file, str) or not is_plain_name(file):
            raise self._wrong(f"its storage location is {shown(file)}, which is not a plain file name", name)
        if type(start) is not int or type(nbytes) is not int or not 0 <= start <= start + nbytes < 1 << 63:
            raise self._wrong(f"its storage location, {shown(nbytes)} bytes at offset {shown(start)}, is invalid", name)
        return Location(file, start, nbytes)

    def _steps(self, name: str) -> Steps:
        if self._nesting is None:
            return (name,)
        steps = self._nesting.get(name) if isinstance(self._nesting, dict) else None
        if not isinstance(steps, tuple) or not steps or not all(type(step) in (str, int) for step in steps):
            raise self._wrong("the metadata has no path in the tree for it", name)
        if len(steps) > self._limits.depth:
            raise self._limits.exceeded("depth", f"a value {len(steps):,} levels deep").located(file=self.path)
        self._steps_left -= len(steps)
        if self._steps_left < 0:
            raise self._wrong("the paths of its values in the tree have too many steps for the size of the metadata")
        return steps

    def _numbers(self, value: object, name: str) -> tuple[int, ...]:
        if not isinstance(value, tuple) or any(type(n) is not int or not 0 <= n < 1 << 63 for n in value):
            raise self._wrong(f"{shown(value)} is not a shape", name)
        if len(value) > self._limits.dimensions:
            raise self._limits.exceeded("dimensions", f"a tensor of {len(value)} dimensions").located(file=self.path)
        return tuple(value)

    def _mapping(self, metadata: Mapping[str, Any], field: str) -> dict[Any, Any]:
        value = metadata.get(field)
        if not isinstance(value, dict):
            raise self._wrong(f"its {field} is missing")
        return value

    def _wrong(self, reason: str, member: str | None = None) -> FormatError:
        return FormatError(reason, file=self.path, member=member)


def _check(tree: object) -> Iterator[Finding]:
    for path, leaf in leaves(tree):
        try:
            leaf.storage.source.verify([leaf.storage])
        except (FormatError, OSError) as error:
            yield Finding("error", path, str(error))


def _fields(value: object, kind: str | tuple[str, ...], file: str) -> dict[str, Any]:
    """Return the attributes of an object of the class `kind`, or of one of several."""
    kinds = (kind,) if isinstance(kind, str) else kind
    if not isinstance(value, Opaque) or value.name not in kinds:
        raise FormatError(f"expected a {kinds[0]}, found {shown(value)}", file=file)
    return value.attributes()


def _no_storage(wanted: StorageId) -> TypedStorage:
    raise FormatError(f"it refers to storage {wanted.key!r}, but metadata has no storages")


def _judged(named: Import) -> Import:
    """Return the import, marked safe if it belongs to this format."""
    known = named.module in DESCRIBING or named.name in METADATA_CLASSES
    return named._replace(risk="safe") if known and named.risk == "unknown" else named


def _once(imports: Iterable[Import]) -> list[Import]:
    return list(dict.fromkeys(imports))


VALUES: dict[str, Callable[[_MetadataReader, str, Mapping[str, Any]], object]] = {
    "TensorStorageMetadata": _MetadataReader.tensor,
    "BytesStorageMetadata": _MetadataReader.plain,
}
