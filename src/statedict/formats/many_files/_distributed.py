"""Read directories of torch.distributed.checkpoint: `.metadata`, and `*.distcp` files of chunks.

Theory of operation. `.metadata` is a pickle of a `Metadata` object, read here as inert data. For each flat name it has
a description (`state_dict_metadata`: dtype, size and chunks of a tensor, or just bytes), the location of each chunk
(`storage_data`: file, offset, length), and the nesting of flat names (`planner_data`: `"opt.state.0.step"` is `("opt",
"state", "0", "step")`). Each chunk, and each object other than a tensor, is a separate torch zip inside a `.distcp`
file. So tensors are known from the metadata alone, and their chunks are opened when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from statedict.files import File, Folder

from ...errors import FormatError
from .._limits import LIMITS, Limits
from .._names import METADATA
from .._pickle import Import, Parsed, StorageId, TypedStorage, parse
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..checkpoint._walk import leaves
from ._assemble import ChunkSource
from ._metadata import MetadataReader, fields_of
from ._metadata_of_ranks import join_metadata
from ._nesting import nested
from ._training import with_roots

METADATA_OF_ALL = ".metadata"
# Megatron-core before 0.16 has a class of its own.
METADATA_CLASSES = ("Metadata", "MCoreMetadata")
# The modules whose classes describe the checkpoint in that file.
DESCRIBING = {f"torch.distributed.checkpoint.{name}" for name in ("metadata", "filesystem", "planner")}


def read_distributed(folder: Folder, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint of a folder with `.metadata`; tensors are read on demand.

    Optimizer states have the form of `Optimizer.state_dict`, and the model is at the root `model` (`_training`).
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
    if not names:
        raise FormatError(
            f"{METADATA_OF_ALL}, which describes the tensors, is missing",
            file=folder.path,
            hint="fetch it from where it was saved",
        )
    names = [METADATA_OF_ALL] if METADATA_OF_ALL in names else sorted(names, key=lambda name: (len(name), name))
    every = [_metadata(folder.file(name), limits) for name in names]
    path = folder.path_of(names[0])
    of_ranks = [fields_of(each.value, METADATA_CLASSES, folder.path_of(name)) for name, each in zip(names, every)]
    fields = join_metadata(of_ranks)
    described = sum(map(folder.size, names))
    source = ChunkSource(folder, limits)
    reader = MetadataReader(folder, path, described, source, fields, limits)
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


def _check(tree: object) -> Iterator[Finding]:
    for path, leaf in leaves(tree):
        try:
            leaf.storage.source.verify([leaf.storage])
        except (FormatError, OSError) as error:
            yield Finding("error", path, str(error))


def _no_storage(wanted: StorageId) -> TypedStorage:
    raise FormatError(f"it refers to storage {wanted.key!r}, but metadata has no storages")


def _judged(named: Import) -> Import:
    """Return the import, marked safe if it belongs to this format."""
    known = named.module in DESCRIBING or named.name in METADATA_CLASSES
    return named._replace(risk="safe") if known and named.risk == "unknown" else named


def _once(imports: Iterable[Import]) -> list[Import]:
    return list(dict.fromkeys(imports))
