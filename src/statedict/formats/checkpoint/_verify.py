"""`Checkpoint.verify` for files whose storages are byte ranges of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from statedict.state import Storage

from ..storages._file_source import FALSE_TIE, FileSource
from ._checkpoint import Finding


def check_storages(source: FileSource, storages: Mapping[str, Storage]) -> Iterator[Finding]:
    """Yield an error for each storage (by the name of one of its tensors) whose bytes do not match their checksum."""
    names: dict[int, str] = {}
    distinct: dict[int, Storage] = {}
    for name, storage in storages.items():
        names.setdefault(id(storage), name)
        distinct[id(storage)] = storage
    for storage, crc in source.wrong(distinct.values()):
        yield Finding("error", names[id(storage)], source.damaged(storage, crc).reason)
    for twin in source.false_twins(distinct.values()):
        yield Finding("error", twin.member, FALSE_TIE)
