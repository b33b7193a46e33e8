"""Archives whose members are files of a checkpoint: Stable-Baselines3's zips, model archives (`.mar`), NeMo's tars.

The members are read as the files of a folder: a stored member is a part of the archive, a small compressed one is
decompressed in memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from statedict import files
from statedict.files import File, FileSlice, Folder

from ...errors import FormatError
from .._limits import Limits
from .._names import SB3
from .._table import read_folder
from ..checkpoint._checkpoint import Checkpoint
from ..zip._archive import Archive, is_affordable, located, read_member
from ..zip._directory import STORED
from ._roots import Member, read_roots
from ._values import read_name, read_values

DATA = "data"
# In JSON, the key of a value that is stored as a pickle.
SERIALIZED = ":serialized:"
LONGEST_VERSION = 100
UNPACK = "unpack the archive, and open the directory"


def read_zip_files(file: File, limits: Limits, archive: Archive) -> Checkpoint:
    """Open the Checkpoint that the members of a zip archive form."""
    return _read(file, archive.members, partial(_member, archive, limits), limits)


def read_tar_files(file: File, limits: Limits, members: Mapping[str, tuple[int, int]]) -> Checkpoint:
    """Open the Checkpoint that the members (offset and bytes by name) of a tar archive form."""
    return _read(file, members, lambda name: _slice(file, name, *members[name]), limits)


def _read(file: File, names: Iterable[str], opener: Callable[[str], File], limits: Limits) -> Checkpoint:
    checkpoint = read_folder(Folder(file.name, opener, names), limits)
    checkpoint._close = file.close
    return checkpoint


def _member(archive: Archive, limits: Limits, name: str) -> File:
    (member,) = located(archive, [archive.members[name]])
    if member.method == STORED:
        return _slice(archive.file, name, member.offset, member.nbytes)
    if not is_affordable(archive, member, limits):
        raise FormatError("this member is compressed", file=archive.file.name, member=name, hint=UNPACK)
    return files.open(io.BytesIO(read_member(archive, name)))


def _slice(file: File, name: str, offset: int, nbytes: int) -> FileSlice:
    return FileSlice(f"{file.name}/{name}", lambda: file, offset, nbytes)


def read_sb3(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a model of Stable-Baselines3: a root for each file (`policy`, `policy.optimizer` …), and
    its plain values at `data`.
    """
    members: dict[str, Member] = {name.removesuffix(".pth"): name for name in folder.files if name.endswith(".pth")}
    if DATA in folder.files:
        members[DATA] = partial(_plain, folder, limits)
    producer = f"Stable-Baselines3 {read_name(folder, SB3)[:LONGEST_VERSION]}"
    return read_roots(folder, "stable-baselines3", members, limits, producer=producer)


def _plain(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the values of a model, without those that are pickled."""
    checkpoint = read_values(folder, DATA, limits)
    values: Any = checkpoint.object
    if isinstance(values, dict):
        checkpoint.object = {
            name: value for name, value in values.items() if not (isinstance(value, dict) and SERIALIZED in value)
        }
    return checkpoint
