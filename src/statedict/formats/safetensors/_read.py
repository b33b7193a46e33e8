"""Read safetensors files: a flat mapping of names to tensors, and in files of ours their checksums and ties."""

from __future__ import annotations

from collections import OrderedDict
from itertools import repeat
from typing import Any

from statedict.files import File
from statedict.state import PLAIN, DType, Leaf, RowKind, Storage, Table, contiguous, leaves_of

from .._limits import LIMITS, Limits
from ..checkpoint._checkpoint import Checkpoint
from ..checkpoint._verify import check_storages
from ..storages._extent import Extent, FileSource
from ..storages._file_table import UNKNOWN_CRC, TableSource
from ._annotations import Annotations, read_annotations, user_metadata
from ._header import Header, read_header


def read_safetensors(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint in a safetensors file; its object maps names to leaves, in the order of the header."""
    header = read_header(file, limits)
    annotations = read_annotations(header, file.name, limits)
    # Members have the names of their tensors, so a message names the tensor anyway.
    source = TableSource(file)
    state = _state(source, header, annotations)
    if annotations is not None and annotations.modules is not None:
        state._metadata = annotations.modules  # type: ignore[attr-defined]
    kept = user_metadata(header.metadata)
    notes = []
    if annotations is None:
        stale = " (those in the metadata belong to another file)" if len(kept) < len(header.metadata) else ""
        notes.append(f"the file has no checksums: damage to its tensors cannot be detected{stale}")
    return Checkpoint(
        file.name,
        "safetensors",
        state,
        size=file.size,
        producer="safetensors" if annotations is None else "statedict",
        notes=notes,
        metadata=kept,
        checks=lambda: check_storages(source, _storages(source, header, annotations)),
        close=file.close,
    )


def _state(source: TableSource, header: Header, annotations: Annotations | None) -> OrderedDict[str, Any]:
    """Return the leaves by name: rows of a table, except tied and empty tensors."""
    ties = annotations.ties if annotations else []
    tied = {name for names in ties for name in names}
    kinds: dict[tuple[DType, tuple[int, ...]], int] = {}
    rows = []
    for (name, entry), crc in zip(header.entries.items(), annotations.crcs if annotations else repeat(UNKNOWN_CRC)):
        if entry.start < entry.stop and name not in tied:
            kind = kinds.setdefault((entry.dtype, entry.shape), len(kinds))
            rows.append((kind, header.end + entry.start, entry.stop - entry.start, crc, name))
    columns = list(zip(*rows)) or [()] * 5
    table = Table(source, [RowKind(contiguous(*kind), PLAIN) for kind in kinds], *columns)
    state: OrderedDict[str, Any] = OrderedDict.fromkeys(header.entries)
    state.update(zip(columns[4], leaves_of(table, range(len(table)))))
    if len(table) < len(state):
        stored = _storages(source, header, annotations)
        for first, *others in ties:
            stored |= dict.fromkeys(others, stored[first])
        for name, entry in header.entries.items():
            if state[name] is None:
                state[name] = Leaf(contiguous(entry.dtype, entry.shape), stored[name])
    return state


def _storages(source: FileSource, header: Header, annotations: Annotations | None) -> dict[str, Storage]:
    """Return the storage of each name, also of tied ones: the first of them knows the others."""
    storages = {}
    for (name, entry), crc in zip(header.entries.items(), annotations.crcs if annotations else repeat(None)):
        nbytes = entry.stop - entry.start
        extent = Extent(header.end + entry.start, nbytes, name, crc, entry.dtype.itemsize)
        storages[name] = source.storage(name, nbytes, extent)
    for first, *others in annotations.ties if annotations else []:
        storages[first].where = storages[first].where._replace(twins=tuple(storages[name].where for name in others))
    return storages
