"""The files of a checkpoint directory, by the plain names in its metadata.

Names cannot lead outside the directory. A file may be a symbolic link, though: the Hugging Face cache uses them.
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
from ._file_slice import FileSlice

# Each rank of a job writes one or more files, and a process may often open only 1,024. We open at most this many, and
# at most this fraction of the limit of the process. (A mapped file is open twice.)
OPEN = 128
PART = 8
TOO_MANY = (errno.EMFILE, errno.ENFILE)


class Location(NamedTuple):
    """Bytes `start … start + nbytes` of the directory's file `file`."""

    file: str
    start: int
    nbytes: int


# In bytes; the limit of common file systems.
LONGEST_NAME = 255


def is_plain_name(name: str) -> bool:
    """Return whether a name read from a file is the plain name of a file in the same folder, on any operating system."""
    if not name.isprintable() or any(mark in name for mark in "/\\:"):
        return False
    return name not in ("", ".", "..") and len(name.encode()) <= LONGEST_NAME


class OpenFiles:
    """The files of a directory; the most recently used ones are open.

    `opener` opens the file of a name. Raises FileChangedError if a file was replaced before it is opened again.
    """

    def __init__(self, folder: str, opener: Callable[[str], File | None] | None = None) -> None:
        self.folder = folder
        self._opener = opener or (lambda name: open_file(os.path.join(folder, name)))
        self._files: dict[str, File] | None = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()

    def file(self, name: str) -> File:
        """Return the open file with that name; raise OSError if it cannot be opened."""
        with self._lock:
            if self._files is None:
                raise ValueError(f"{self.folder} has been closed; open it again")
            found = self._files.pop(name, None) or self._open(name, self._files)
            self._files[name] = found
            return found

    def reopening(self, name: str) -> FileSlice:
        """Return a File with that name that keeps it open only while it is among the most recently used."""
        return FileSlice(os.path.join(self.folder, name), partial(self.file, name), 0, self.file(name).size)

    def slice(self, location: Location) -> FileSlice:
        """Return a File of the bytes at a location; raise FormatError if the file does not contain them."""
        path = os.path.join(self.folder, location.file)
        try:
            size = self.file(location.file).size
        except FileNotFoundError as error:
            raise FormatError("the metadata refers to this file, which is missing", file=path) from error
        if location.start < 0 or location.nbytes < 0 or location.start + location.nbytes > size:
            raise FormatError(
                f"the metadata refers to bytes {location.start:,} to {location.start + location.nbytes:,} of this file, "
                f"which has {size:,}",
                file=path,
            )
        return FileSlice(path, partial(self.file, location.file), location.start, location.nbytes)

    def close(self) -> None:
        """Close all files; nothing can be read afterwards."""
        with self._lock:
            files, self._files = self._files or {}, None
        for file in files.values():
            file.close()

    def _open(self, name: str, others: dict[str, File]) -> File:
        # Drop the reference but do not close the file: another thread may be reading it.
        while len(others) >= most_open():
            others.pop(next(iter(others)))
        path = os.path.join(self.folder, name)
        before = _stamp(path)
        try:
            found = self._opener(name)
        except OSError as error:
            if error.errno not in TOO_MANY or not others:
                raise
            others.clear()
            found = self._opener(name)
        if found is None:
            raise FormatError("its other files are in the same directory", file=self.folder, hint="open it by its path")
        if {self._stamps.setdefault(name, before), _stamp(path)} != {before}:
            raise FileChangedError(path, "the file was replaced")
        return found


def most_open() -> int:
    """Return how many files may be open at once."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OPEN if allowed == resource.RLIM_INFINITY else max(1, min(OPEN, allowed // PART))


def _stamp(path: str) -> tuple[int, ...]:
    """Return what distinguishes a file from another one at its path; an empty tuple if it is missing, which `locate`
    reports.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
