"""Estimate how much of a truncated torch file is missing: its pickle comes first, and names all storages that follow."""

from __future__ import annotations

from statedict.files import File

from ...errors import FormatError, TruncatedError
from .._limits import Limits
from .._pickle import StorageId, TypedStorage
from ..storages._extent import Extent
from ..storages._file_source import FileSource
from ..zip._directory import STORED
from ..zip._members import LOCAL
from ._stacked_pickles import parse_at


def cut_short(file: File, error: TruncatedError, limits: Limits) -> TruncatedError:
    """Return the error for an archive without an end record, with the expected size if the first member shows it."""
    try:
        least = _least_size(file, limits)
    except FormatError:
        return error
    if least <= file.size:
        return error
    return TruncatedError(
        f"the file is truncated: it has {file.size:,} of at least {least:,} bytes", file=file.name, hint=error.hint
    )


def _least_size(file: File, limits: Limits) -> int:
    """Return the minimal size of a torch file by the storages that its pickle names; 0 if unknown."""
    signature, _, method, _, _, _, name_length, extra_length = LOCAL.unpack(file.read(0, LOCAL.size))
    name = file.read(LOCAL.size, name_length)
    if signature != b"PK\3\4" or method != STORED or not name.endswith(b"/data.pkl"):
        return 0
    source = FileSource(file)
    storages: dict[str, TypedStorage] = {}

    def claim(wanted: StorageId) -> TypedStorage:
        nbytes = wanted.numel * (wanted.dtype.itemsize if wanted.dtype else 1)
        storage = source.storage(wanted.key, nbytes, Extent(0, nbytes, wanted.key))
        return storages.setdefault(wanted.key, TypedStorage(storage, wanted.dtype, wanted.numel))

    stacked = parse_at(file, LOCAL.size + name_length + extra_length, "data.pkl", limits, storage=claim)
    return stacked.end + sum(storage.nbytes for storage in storages.values())
