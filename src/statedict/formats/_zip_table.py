"""The table of formats that are zip archives, recognised by their members; also for archives that were unpacked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from statedict.files import File, Folder

from ..errors import TruncatedError
from ._folder_table import unpacked_in
from ._format import function
from ._limits import Limits
from ._names import FLAT_PROGRAM, MANIFEST, PACKAGE, SB3
from .checkpoint._checkpoint import Checkpoint

if TYPE_CHECKING:
    from .zip._archive import Archive


class ZipFormat(NamedTuple):
    """A format that is a zip archive. `read` is `module:function`, which takes a File, Limits and an Archive."""

    name: str
    has: Callable[[Archive], bool]
    read: str


def read_zip(file: File, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a zip archive with the first format of the table that recognises its members."""
    from .zip._archive import open_zip

    try:
        archive = open_zip(file, limits)
    except TruncatedError as error:
        raise function(".torch_files._truncated:cut_short")(file, error, limits) from error
    return _read_members(archive, limits)


def read_unpacked(folder: Folder, limits: Limits) -> Checkpoint:
    """Read the checkpoint in a zip archive that was unpacked: its folder, or the one that contains that."""
    from .zip._unpacked import unpacked

    inside = unpacked_in(folder)
    top = "" if FLAT_PROGRAM in inside.files else "archive/"
    archive = unpacked(inside, limits, top)
    checkpoint = _read_members(archive, limits)
    checkpoint.size = sum(member.nbytes for member in archive.members.values())
    return checkpoint


def _read_members(archive: Archive, limits: Limits) -> Checkpoint:
    for row in ZIP_FORMATS:
        if row.has(archive):
            return cast(Checkpoint, function(row.read)(archive.file, limits, archive))
    from ._foreign_formats import other_archive

    raise other_archive("zip", archive.file.name, archive.members)


def _has_arrays(archive: Archive) -> bool:
    return bool(archive.members) and all(name.endswith(".npy") for name in archive.members)


def _has_constants(archive: Archive) -> bool:
    return _has(archive, "data.pkl") and _has(archive, "constants.pkl")


def _has_pickle(archive: Archive) -> bool:
    return _has(archive, "data.pkl")


def _has_files(archive: Archive) -> bool:
    return SB3 in archive.members or MANIFEST in archive.members


def _has_program(archive: Archive) -> bool:
    """Return whether an archive is a package of torch.export and torch.load does not take it for a file of torch.save."""
    if FLAT_PROGRAM in archive.members or PACKAGE in archive.members:
        return True
    folder = next(iter(archive.members), "").partition("/")[0]
    return f"{folder}/{PACKAGE}" in archive.members and f"{folder}/data.pkl" not in archive.members


def _has(archive: Archive, name: str) -> bool:
    """Return whether a member has that name, in any folder. Searching the joined names is faster than testing each one."""
    from .zip._members import text_of

    joined = text_of(archive.members)
    return f"/{name}\n" in f"{joined}\n" or f"\n{name}\n" in f"\n{joined}\n"


ZIP_FORMATS = (
    ZipFormat("pt2", _has_program, ".torch_files._exported:read_exported"),
    ZipFormat("torchscript", _has_constants, ".torch_files._torchscript:read_torchscript"),
    ZipFormat("torch", _has_pickle, ".torch_files._read:read_torch_zip"),
    ZipFormat("npz", _has_arrays, ".numpy_files._read:read_npz"),
    ZipFormat("files", _has_files, ".folders._archives:read_zip_files"),
)
