"""What `Checkpoint.verify` looks at in a file whose storages are extents of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from statedict.state import Storage

from ..storages._extent import FALSE_TIE, FileSource
from ._checkpoint import Finding


def check_storages(source: FileSource, storages: Mapping[str, Storage]) -> Iterator[Finding]:
    """An error for each storage (by the name of a tensor that shows it) whose bytes are not those that were written."""
    names: dict[int, str] = {}
    distinct: dict[int, Storage] = {}
    for name, storage in storages.items():
        names.setdefault(id(storage), name)
        distinct[id(storage)] = storage
    for storage, crc in source.wrong(distinct.values()):
        yield Finding("error", names[id(storage)], source.damaged(storage, crc).reason)
    for twin in source.false_twins(distinct.values()):
        yield Finding("error", twin.member, FALSE_TIE)
