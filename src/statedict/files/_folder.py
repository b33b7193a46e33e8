"""Files by name: those in a directory, in an archive, or next to an index.

A checkpoint may have thousands of files, so only the most recently used ones stay open. A name that was read from a file may
lead outside the directory, so check it with `is_plain_name` before it is used. Files may be symbolic links: the Hugging Face
cache uses them.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable
from functools import cached_property, partial
from typing import NamedTuple

from ..errors import FileChangedError, FormatError
from ._file import File
from ._open import local_path
from ._open import open as open_file
from ._slice import FileSlice
from .system import open_files_limit

# Each rank of a job writes one or more files, and a process may often open only 1,024. We open at most this many, and
# at most this fraction of the limit of the process. (A mapped file is open twice.)
OPEN = 128
PART = 8
TOO_MANY = (errno.EMFILE, errno.ENFILE)
# In bytes; the limit of common file systems.
LONGEST_NAME = 255
SEPARATOR = "/"


class Location(NamedTuple):
    """Bytes `start … start + nbytes` of a folder's file `file`."""

    file: str
    start: int
    nbytes: int


class Entries(NamedTuple):
    """The plain names of the files and folders in a folder, sorted."""

    files: list[str]
    folders: list[str]


def is_plain_name(name: str) -> bool:
    """Return whether a name read from a file is the plain name of a file in the same folder, on any operating system."""
    if not name.isprintable() or any(mark in name for mark in "/\\:"):
        return False
    return name not in ("", ".", "..") and len(name.encode()) <= LONGEST_NAME


class Folder:
    """The files of a directory, and of the folders in it, by name (`"model.pt"`, `"optimizer/0.pt"`).

    `opener` opens the file of a name, by default one on disk. `names` are the names of all files, or a function that lists
    a folder by its name (`""`, `"optimizer/"`); by default those on disk.

    Attributes:
        path: the path of the directory, for messages.

    Raises FileChangedError if a file was replaced before it is opened again.
    """

    def __init__(
        self,
        path: str,
        opener: Callable[[str], File | None] | None = None,
        names: Iterable[str] | Callable[[str], Entries] | None = None,
    ) -> None:
        self.path = path
        self._names = names if names is None or callable(names) else list(names)
        self._open_files = _OpenFiles(path, opener or (lambda name: open_file(os.path.join(path, name))))
        self._within = ""
        self._folders: dict[str, Folder] = {}

    @cached_property
    def entries(self) -> Entries:
        """The plain names of the files and folders directly in this folder."""
        if self._names is None:
            with os.scandir(self.path) as found:
                kinds = {entry.name: _is_directory(entry) for entry in found}
        elif callable(self._names):
            return self._names(self._within)
        else:
            inside = [name.removeprefix(self._within) for name in self._names if name.startswith(self._within)]
            kinds = {name.partition(SEPARATOR)[0]: SEPARATOR in name for name in inside if name}
        names = sorted(kinds)
        return Entries([name for name in names if not kinds[name]], [name for name in names if kinds[name]])

    @property
    def files(self) -> list[str]:
        """The plain names of the files directly in this folder."""
        return self.entries.files

    @property
    def folders(self) -> list[str]:
        """The plain names of the folders directly in this folder."""
        return self.entries.folders

    @property
    def depth(self) -> int:
        """How many levels this folder is below the one that was opened."""
        return self._within.count(SEPARATOR)

    def count_visits(self, number: int) -> int:
        """Count that `number` folders are looked into; return the count for all folders below the one that was opened.

        Symbolic links can lead to the same folder in any number of ways.
        """
        self._open_files.visits += number
        return self._open_files.visits

    def path_of(self, name: str) -> str:
        """Return the path of a file or folder, for messages."""
        return os.path.join(self.path, name)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes; raise OSError if it does not exist."""
        return self.file(name).size if self._names is not None else os.stat(self.path_of(name)).st_size

    def file(self, name: str) -> FileSlice:
        """Return the file with that name; raise OSError if it cannot be opened. `close` of the folder closes it."""
        full = f"{self._within}{name}"
        opened = partial(self._open_files.file, full)
        return FileSlice(self.path_of(name), opened, 0, opened().size, folder=partial(self._beside, name))

    def slice(self, location: Location) -> FileSlice:
        """Return a File of the bytes at a location; raise FormatError if the file does not contain them."""
        path = self.path_of(location.file)
        opened = partial(self._open_files.file, f"{self._within}{location.file}")
        try:
            size = opened().size
        except FileNotFoundError as error:
            raise FormatError("the metadata refers to this file, which is missing", file=path) from error
        if location.start < 0 or location.nbytes < 0 or location.start + location.nbytes > size:
            raise FormatError(
                f"the metadata refers to bytes {location.start:,} to {location.start + location.nbytes:,} of this file, "
                f"which has {size:,}",
                file=path,
            )
        return FileSlice(path, opened, location.start, location.nbytes)

    def folder(self, name: str) -> Folder:
        """Return the folder with that name in this folder; closing either closes the files of both."""
        if name not in self._folders:
            found = Folder(self.path_of(name), names=self._names)
            found._open_files, found._within = self._open_files, f"{self._within}{name}{SEPARATOR}"
            self._folders[name] = found
        return self._folders[name]

    def without(self, names: Collection[str]) -> Folder:
        """Return the same folder as if it did not have these files and folders; closing either closes the files of both."""
        found = Folder(self.path, names=self._names)
        found._open_files, found._within, found._folders = self._open_files, self._within, self._folders
        found.entries = Entries(*([name for name in kind if name not in names] for kind in self.entries))
        return found

    def refresh(self) -> None:
        """Forget what was listed and opened: files may have been deleted, and others may have their names."""
        self.__dict__.pop("entries", None)
        self._folders.clear()
        self._open_files.forget()

    def require_open(self) -> None:
        """Raise ValueError if the folder was closed."""
        self._open_files.require_open()

    def close(self) -> None:
        """Close all files; nothing can be read afterwards."""
        self._open_files.close()

    def _beside(self, name: str, other: str) -> FileSlice:
        above, separator, _ = name.rpartition(SEPARATOR)
        return self.file(f"{above}{separator}{other}")


def open_folder(path: str) -> Folder:
    """Return the Folder of a directory, or of the URL of one."""
    local = local_path(path)
    if local is not None:
        return Folder(os.fspath(local))
    from .stores._open import is_in_store

    if is_in_store(path):
        from .stores._file import stored_folder

        return stored_folder(path)
    from ._remote_folder import remote_folder

    return remote_folder(path)


class _OpenFiles:
    """The open files of a directory and the folders in it."""

    def __init__(self, path: str, opener: Callable[[str], File | None]) -> None:
        self.path = path
        self._opener = opener
        self._files: dict[str, File] | None = {}
        self._stamps: dict[str, tuple[int, ...]] = {}
        self.visits = 0
        self._lock = threading.Lock()

    def file(self, name: str) -> File:
        """Return the open file with that name; raise OSError if it cannot be opened."""
        with self._lock:
            files = self.require_open()
            found = files.pop(name, None) or self._open(name, files)
            files[name] = found
            return found

    def require_open(self) -> dict[str, File]:
        """Return the open files by name; raise ValueError if the folder was closed."""
        if self._files is None:
            raise ValueError(f"{self.path} has been closed; open it again")
        return self._files

    def forget(self) -> None:
        """Drop the references to all files but do not close them: another thread may be reading them."""
        with self._lock:
            self.require_open().clear()
            self._stamps.clear()

    def close(self) -> None:
        with self._lock:
            files, self._files = self._files or {}, None
        for file in files.values():
            file.close()

    def _open(self, name: str, others: dict[str, File]) -> File:
        # Drop the reference but do not close the file: another thread may be reading it.
        while len(others) >= most_open():
            others.pop(next(iter(others)))
        path = os.path.join(self.path, name)
        before = _stamp(path)
        try:
            found = self._opener(name)
        except OSError as error:
            if error.errno not in TOO_MANY or not others:
                raise
            others.clear()
            found = self._opener(name)
        if found is None:
            raise FormatError("its other files are in the same directory", file=self.path, hint="open it by its path")
        if {self._stamps.setdefault(name, before), _stamp(path)} != {before}:
            raise FileChangedError(path, "the file was replaced")
        return found


def most_open() -> int:
    """Return how many files may be open at once."""
    allowed = open_files_limit()
    return OPEN if allowed is None else max(1, min(OPEN, allowed // PART))


def _stamp(path: str) -> tuple[int, ...]:
    """Return what distinguishes a file from another one at its path; an empty tuple if it is missing, which the caller
    reports.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory. A link that leads to itself counts as a file, whose opening raises the reason."""
    try:
        return entry.is_dir()
    except OSError:
        return False
