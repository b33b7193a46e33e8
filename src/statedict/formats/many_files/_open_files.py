"""The files of a checkpoint directory, by the plain names that its metadata gives them.

Nothing outside the directory can be named. A name may be a symbolic link, though: that is how the Hugging Face cache keeps
its files.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from statedict.files import File
from statedict.files import open as open_file

from ...errors import FileChangedError, FormatError
from ._window import Window

# Each rank of a job writes a file or several, and a process may have 1,024 open: at most so many of them are ours, and at
# most this part of what the process may have. (A file that is mapped is open twice.)
OPEN = 128
PART = 8
TOO_MANY = (errno.EMFILE, errno.ENFILE)


class Place(NamedTuple):
    """Bytes `start … start + nbytes` of the directory's file `file`."""

    file: str
    start: int
    nbytes: int


# Bytes; what file systems allow.
LONGEST_NAME = 255


def is_plain_name(name: str) -> bool:
    """Whether a name from a file is that of a file in the same folder, whatever the system."""
    if not name.isprintable() or any(mark in name for mark in "/\\:"):
        return False
    return name not in ("", ".", "..") and len(name.encode()) <= LONGEST_NAME


class Shelf:
    """The files of a directory, of which the last used are open.

    `place` opens the file of a name. One that is opened again must still be the same: FileChangedError otherwise.
    """

    def __init__(self, folder: str, place: Callable[[str], File | None] | None = None) -> None:
        self.folder = folder
        self._place = place or (lambda name: open_file(os.path.join(folder, name)))
        self._files: dict[str, File] | None = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._turn = threading.Lock()

    def file(self, name: str) -> File:
        """The open file of that name; raises OSError where it cannot be opened."""
        with self._turn:
            if self._files is None:
                raise ValueError(f"{self.folder} has been closed; open it again")
            found = self._files.pop(name, None) or self._open(name, self._files)
            self._files[name] = found
            return found

    def whole(self, name: str) -> Window:
        """The File of that name, which is open only while it is among the last used."""
        return Window(os.path.join(self.folder, name), partial(self.file, name), 0, self.file(name).size)

    def window(self, place: Place) -> Window:
        """The File of a place; raises FormatError where it does not lie in its file."""
        path = os.path.join(self.folder, place.file)
        try:
            size = self.file(place.file).size
        except FileNotFoundError as error:
            raise FormatError("the metadata names this file, which is missing", file=path) from error
        if place.start < 0 or place.nbytes < 0 or place.start + place.nbytes > size:
            raise FormatError(
                f"the metadata names bytes {place.start:,} to {place.start + place.nbytes:,} of this file, "
                f"which has {size:,}",
                file=path,
            )
        return Window(path, partial(self.file, place.file), place.start, place.nbytes)

    def close(self) -> None:
        """Close all; nothing can be read afterwards."""
        with self._turn:
            files, self._files = self._files or {}, None
        for file in files.values():
            file.close()

    def _open(self, name: str, others: dict[str, File]) -> File:
        # Let go, not closed: another thread may be reading it.
        while len(others) >= most_open():
            others.pop(next(iter(others)))
        path = os.path.join(self.folder, name)
        before = _stamp(path)
        try:
            found = self._place(name)
        except OSError as error:
            if error.errno not in TOO_MANY or not others:
                raise
            others.clear()
            found = self._place(name)
        if found is None:
            raise FormatError("the files lie beside it", file=self.folder, hint="open it by its path")
        if {self._stamps.setdefault(name, before), _stamp(path)} != {before}:
            raise FileChangedError(path, "another file is there now")
        return found


def most_open() -> int:
    """How many files a shelf may have open."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN if allowed == resource.RLIM_INFINITY else max(1, min(OPEN, allowed // PART))


def _stamp(path: str) -> tuple[int, ...]:
    """What tells a file from another one of its path; nothing where there is none, as `place` will say."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
