"""Pickles that lie one after the other in a file, and between other bytes: each is read from where it begins."""

from __future__ import annotations

from typing import Any, NamedTuple

from statedict.files import File

from ...errors import FormatError, TruncatedError
from .._limits import Limits
from .._pickle import Parsed, StorageId, TypedStorage, parse

# A pickle does not say how long it is: it is tried with this much, and with 16 times as much while that is too little.
FIRST = 4 << 10
GROWTH = 16


class Stacked(NamedTuple):
    """A pickle's content, and where in the file it ends."""

    parsed: Parsed
    end: int


def parse_at(file: File, start: int, member: str, limits: Limits, **callbacks: Any) -> Stacked:
    """The pickle that begins at byte `start`; `member` is what to call it, `callbacks` are those of `parse`.

    The callbacks are called again from the beginning where more of the file has to be read.
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
    """For pickles beside which no storages lie."""
    raise FormatError(f"it names a storage {wanted.key[:100]!r}, where there can be none")
