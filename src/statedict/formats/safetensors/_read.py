"""Read safetensors files: a flat mapping of names to tensors, and in files of ours their checksums and ties."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from statedict.files import File
from statedict.state import PLAIN, DType, Leaf, RowKind, Storage, Table, contiguous, leaves_of

from .._limits import LIMITS, Limits
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..checkpoint._verify import check_storages
from ..storages._extent import Extent
from ..storages._file_source import FileSource
from ..storages._file_table import UNKNOWN_CRC, TableSource
from ._aliases import Alias, recorded_aliases, with_aliases
from ._annotations import Annotations, read_annotations, user_metadata
from ._header import Header, read_header
from ._parts import ONE_RANK, SHARDING_INFO, as_parts, is_whole
from ._torchao import note_of_parts
from ._wrappers import put_together


def read_safetensors(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a safetensors file; its object maps names to leaves, in the order of the header."""
    header = read_header(file, limits)
    annotations = read_annotations(header, file.name, limits)
    # Members have the names of their tensors, so a message names the tensor anyway.
    source = TableSource(file)
    in_parts = SHARDING_INFO in header.metadata and not is_whole(file.name, header.metadata, limits)
    aliases = {} if in_parts else recorded_aliases(header, annotations.places if annotations else None)
    state, table, single = _state(source, header, annotations, aliases)
    if in_parts:
        state = OrderedDict(as_parts(state, header.metadata, file.name, limits))
    if annotations is not None and annotations.wrappers:
        state = OrderedDict(put_together(state, annotations.wrappers, file.name))
    if annotations is not None and annotations.modules is not None:
        state._metadata = annotations.modules  # type: ignore[attr-defined]
    kept = {key: text for key, text in user_metadata(header.metadata).items() if key not in aliases}
    notes = note_of_parts(header.metadata)
    if in_parts:
        notes.append(ONE_RANK)
    if annotations is None:
        foreign = len(user_metadata(header.metadata)) < len(header.metadata)
        stale = " (those in the metadata belong to another file)" if foreign else ""
        notes.append(f"the file has no checksums: damage to its tensors cannot be detected{stale}")
    return Checkpoint(
        file.name,
        "safetensors",
        state,
        size=file.size,
        producer="safetensors" if annotations is None else "statedict",
        notes=notes,
        metadata=kept,
        checks=partial(_checks, source, list(header.entries), table, single),
        close=file.close,
    )


def _state(
    source: TableSource, header: Header, annotations: Annotations | None, aliases: Mapping[str, Alias]
) -> tuple[OrderedDict[str, Any], Table, dict[str, Storage]]:
    """Return the leaves by name, the table of which they are rows, and the storages of those that are not: tied and empty
    tensors."""
    tied = {alias.of for alias in aliases.values()}
    kinds: dict[tuple[DType, tuple[int, ...]], int] = {}
    rows, single = [], {}
    for (name, entry), crc in zip(header.entries.items(), annotations.crcs if annotations else repeat(UNKNOWN_CRC)):
        if entry.start < entry.stop and name not in tied:
            kind = kinds.setdefault((entry.dtype, entry.shape), len(kinds))
            rows.append((kind, header.end + entry.start, entry.stop - entry.start, crc, name))
        else:
            nbytes, expected = entry.stop - entry.start, None if crc == UNKNOWN_CRC else crc
            extent = Extent(header.end + entry.start, nbytes, name, expected, entry.dtype.itemsize)
            single[name] = source.storage(name, nbytes, extent)
    columns = list(zip(*rows)) or [()] * 5
    table = Table(source, [RowKind(contiguous(*kind), PLAIN) for kind in kinds], *columns)
    state: OrderedDict[str, Any] = OrderedDict.fromkeys(with_aliases(list(header.entries), aliases))
    state.update(zip(columns[4], leaves_of(table, range(len(table)))))
    for name, storage in single.items():
        entry = header.entries[name]
        state[name] = Leaf(contiguous(entry.dtype, entry.shape), storage)
    for name, alias in aliases.items():
        entry = header.entries[alias.of]
        state[name] = Leaf(contiguous(entry.dtype, entry.shape), single[alias.of])
    return state, table, single


def _checks(source: FileSource, names: Sequence[str], table: Table, single: Mapping[str, Storage]) -> Iterator[Finding]:
    rows = iter(range(len(table)))
    yield from check_storages(source, {name: single.get(name) or table.storage(next(rows)) for name in names})
