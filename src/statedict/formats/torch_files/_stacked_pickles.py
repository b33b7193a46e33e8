"""Read consecutive pickles in a file, each from its offset."""

from __future__ import annotations

from typing import Any, NamedTuple

from statedict.files import File

from ...errors import FormatError, TruncatedError
from .._limits import Limits
from .._pickle import Parsed, StorageId, TypedStorage, parse

# The length of a pickle is not known in advance: read this much, then 16 times as much as long as it is too little.
FIRST = 4 << 10
GROWTH = 16


class Stacked(NamedTuple):
    """The content of a pickle, and the offset at which it ends."""

    parsed: Parsed
    end: int


def parse_at(file: File, start: int, member: str, limits: Limits, **callbacks: Any) -> Stacked:
    """Read the pickle that begins at byte `start`; `member` is its name in messages, `callbacks` are those of `parse`.

    The callbacks are called again from the beginning if more of the file has to be read.
    """
    callbacks.setdefault("storage", no_storage)
    nbytes = FIRST
    while True:
        left = file.size - start
        data = file.read(start, min(nbytes, left))
        try:
            parsed = parse(data, file=file.name, member=member, limits=limits, whole=False, paid=file.size, **callbacks)
        except TruncatedError:
            if nbytes >= min(left, limits.pickle_bytes):
                raise
            nbytes *= GROWTH
        else:
            return Stacked(parsed, start + parsed.end)


def no_storage(wanted: StorageId) -> TypedStorage:
    """Raise FormatError: for pickles that cannot have storages."""
    raise FormatError(f"it refers to storage {wanted.key[:100]!r}, but this pickle cannot have storages")
