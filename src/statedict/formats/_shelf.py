"""The files of a checkpoint directory, by the plain names that its metadata gives them.

Nothing outside the directory can be named. A name may be a symbolic link, though: that is how the Hugging Face cache keeps
its files.
"""

from __future__ import annotations

import os
from functools import partial
from typing import NamedTuple

from statedict.files import File
from statedict.files import open as open_file

from ..errors import FormatError
from ._window import Window

# Each rank of a job writes a file or several, and a process may have 1,024 open.
OPEN = 128


class Place(NamedTuple):
    """Bytes `start … start + nbytes` of the directory's file `file`."""

    file: str
    start: int
    nbytes: int


def is_plain_name(name: str) -> bool:
    """Whether a name from a file is that of a file in the same folder, whatever the system."""
    return bool(name) and name not in (".", "..") and name.isprintable() and not any(mark in name for mark in "/\\:")


class Shelf:
    """The files of a directory, of which the last used are open."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._files: dict[str, File] | None = {}

    def file(self, name: str) -> File:
        """The open file of that name; raises FormatError where there is none."""
        if self._files is None:
            raise ValueError(f"{self.folder} has been closed; open it again")
        found = self._files.pop(name, None)
        if found is None:
            found = self._open(name)
            if len(self._files) >= OPEN:
                self._files.pop(next(iter(self._files))).close()
        self._files[name] = found
        return found

    def window(self, place: Place) -> Window:
        """The File of a place; raises FormatError where it does not lie in its file."""
        size = self.file(place.file).size
        path = os.path.join(self.folder, place.file)
        if place.start < 0 or place.nbytes < 0 or place.start + place.nbytes > size:
            raise FormatError(
                f"the metadata names bytes {place.start:,} to {place.start + place.nbytes:,} of this file, "
                f"which has {size:,}",
                file=path,
            )
        return Window(path, partial(self.file, place.file), place.start, place.nbytes)

    def close(self) -> None:
        """Close all; nothing can be read afterwards."""
        files, self._files = self._files or {}, None
        for file in files.values():
            file.close()

    def _open(self, name: str) -> File:
        path = os.path.join(self.folder, name)
        try:
            return open_file(path)
        except OSError as error:
            raise FormatError(f"it cannot be opened: {error.strerror}", file=path) from error
