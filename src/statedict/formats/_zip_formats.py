"""The formats that are zip archives, recognised by their members; each has a reader. To add one, add a row here."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

from statedict.files import File

from ..errors import TruncatedError, UnknownFormatError
from ._limits import Limits
from ._table import function
from .checkpoint._checkpoint import Checkpoint
from .zip._archive import Archive, open_zip
from .zip._members import text_of


class ZipFormat(NamedTuple):
    """A format that is a zip archive. `read` is `module:function`, which takes a File, Limits and an Archive."""

    name: str
    has: Callable[[Archive], bool]
    read: str


def read_zip(file: File, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a zip archive with the first format of the table that recognises its members."""
    try:
        archive = open_zip(file, limits)
    except TruncatedError as error:
        from .torch_files._truncated import cut_short

        raise cut_short(file, error, limits) from error
    for row in ZIP_FORMATS:
        if row.has(archive):
            return cast(Checkpoint, function(row.read)(file, limits, archive))
    named = ", ".join(list(archive.members)[:5]) or "none"
    raise UnknownFormatError(
        f"this is a zip archive, but not a checkpoint; its members: {named}",
        file=file.name,
        hint="if one of them is a checkpoint, unpack the archive and open that file",
    )


def _has_arrays(archive: Archive) -> bool:
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def _has_constants(archive: Archive) -> bool:
    return _has(archive, "data.pkl") and _has(archive, "constants.pkl")


def _has_pickle(archive: Archive) -> bool:
    return _has(archive, "data.pkl")


def _has(archive: Archive, name: str) -> bool:
    """Return whether a member has that name, in any folder. Searching the joined names is faster than testing each one."""
    joined = text_of(archive.members)
    return f"/{name}\n" in f"{joined}\n" or f"\n{name}\n" in f"\n{joined}\n"


ZIP_FORMATS = (
    ZipFormat("torchscript", _has_constants, ".torch_files._torchscript:read_torchscript"),
    ZipFormat("torch", _has_pickle, ".torch_files._read:read_torch_zip"),
    ZipFormat("npz", _has_arrays, ".numpy_files._read:read_npz"),
)
