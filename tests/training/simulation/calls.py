"""Puts the simulated computer under Python: the functions of `os` and its neighbours that a save and a resume use.

A path below ROOT, and a descriptor of the simulation, go to the process whose turn it is; all others go to the real system.
So the code of the library runs as it is, with `pathlib`, `shutil`, `os.walk` and whatever else it uses; a call that is not
simulated finds no such file.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import fcntl
import gc
import io
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from statedict.training import _clock

from .computer import Computer
from .process import FIRST_DESCRIPTOR, Process

ROOT = "/simulated"
RENAME_EXCHANGE = 2


class SystemCalls:
    """The functions that are put in the place of the real ones.

    Attributes:
        computer: the computer whose processes run now; None: there is none, and every call is a real one.
    """

    def __init__(self) -> None:
        self.computer: Computer | None = None

    @property
    def running(self) -> Process | None:
        """The process whose turn it is."""
        computer = self.computer
        return None if computer is None else computer.running

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the functions of the system until the block ends."""
        before = [(module, name, getattr(module, name)) for module, name, _ in self._table()]
        for module, name, make in self._table():
            setattr(module, name, make(getattr(module, name)))
        try:
            yield
        finally:
            # What dead processes had open is closed while that means nothing.
            gc.collect()
            for module, name, found in before:
                setattr(module, name, found)

    def _table(self) -> list[tuple[Any, str, Callable[[Any], Any]]]:
        on_path, on_fd = self._on_path, self._on_descriptor
        return [
            (os, "stat", self._stat),
            (os, "lstat", on_path(lambda process, path: process.stat(path))),
            (os, "listdir", on_path(lambda process, path: process.listdir(path))),
            (os, "scandir", self._scandir),
            (os, "mkdir", on_path(lambda process, path, mode=0o777: process.mkdir(path))),
            (os, "rmdir", on_path(lambda process, path: process.rmdir(path))),
            (os, "unlink", on_path(lambda process, path: process.unlink(path))),
            (os, "remove", on_path(lambda process, path: process.unlink(path))),
            (os, "rename", on_path(lambda process, one, other: process.rename(one, _path(other)))),
            (os, "replace", on_path(lambda process, one, other: process.rename(one, _path(other)))),
            (os, "link", on_path(lambda process, one, other: process.link(one, _path(other)))),
            (os, "utime", on_path(lambda process, path, times=None: process.utime(path))),
            (os, "statvfs", on_path(lambda process, path: process.free(path))),
            (os, "open", on_path(lambda process, path, flags, mode=0o777: process.open(path, flags))),
            (os, "close", self._close),
            (os, "fstat", on_fd(lambda process, fd: process.fstat(fd))),
            (os, "pread", on_fd(lambda process, fd, nbytes, offset: process.read(fd, nbytes, offset))),
            (os, "preadv", on_fd(lambda process, fd, buffers, offset: process.read_into(fd, buffers, offset))),
            (os, "pwrite", on_fd(lambda process, fd, data, offset: process.write(fd, [data], offset))),
            (os, "pwritev", on_fd(lambda process, fd, buffers, offset: process.write(fd, buffers, offset))),
            (os, "ftruncate", on_fd(lambda process, fd, nbytes: process.resize(fd, nbytes))),
            (os, "posix_fallocate", on_fd(lambda process, fd, offset, nbytes: process.allocate(fd, offset + nbytes))),
            (os, "fsync", on_fd(lambda process, fd: process.fsync(fd))),
            (os, "fchmod", on_fd(lambda process, fd, mode: None)),
            (os, "fchown", on_fd(lambda process, fd, user, group: None)),
            (os, "getpid", self._instead(lambda process: process.pid)),
            (os, "urandom", self._instead(_random_bytes)),
            # `secrets` takes its bytes from here.
            (random, "_urandom", self._instead(_random_bytes)),
            (fcntl, "flock", on_fd(lambda process, fd, how: process.lock(fd, wait=not how & fcntl.LOCK_NB))),
            (io, "open", self._stream),
            (builtins, "open", self._stream),
            (time, "sleep", self._instead(lambda process, seconds: process.sleep(seconds))),
            (time, "time_ns", self._instead(lambda process: process.computer.clock)),
            (
                _clock,
                "now",
                self._instead(lambda process: datetime.fromtimestamp(process.computer.clock // 10**9, UTC)),
            ),
            (ctypes, "CDLL", self._library),
        ]

    def _on_path(self, simulated: Callable[..., Any]) -> Callable[[Any], Any]:
        """A maker of a function that goes to the simulation if its first argument is a path there."""

        def make(real: Any) -> Any:
            def call(path: Any, *arguments: Any, **options: Any) -> Any:
                process = self.running
                if process is None or isinstance(path, int):
                    return real(path, *arguments, **options)
                name = _path(path)
                folder = options.pop("dir_fd", None)
                if folder is not None and folder >= FIRST_DESCRIPTOR:
                    name = f"{process.path_of(folder)}/{name}"
                elif not name.startswith(ROOT):
                    return (
                        real(path, *arguments, **options)
                        if folder is None
                        else real(path, *arguments, dir_fd=folder, **options)
                    )
                return simulated(process, name, *arguments, **options)

            return call

        return make

    def _on_descriptor(self, simulated: Callable[..., Any]) -> Callable[[Any], Any]:
        def make(real: Any) -> Any:
            def call(fd: Any, *arguments: Any) -> Any:
                process = self.running
                if process is None or not isinstance(fd, int) or fd < FIRST_DESCRIPTOR:
                    return real(fd, *arguments)
                return simulated(process, fd, *arguments)

            return call

        return make

    def _instead(self, simulated: Callable[..., Any]) -> Callable[[Any], Any]:
        """A maker of a function that goes to the simulation whenever a process runs there."""

        def make(real: Any) -> Any:
            def call(*arguments: Any) -> Any:
                process = self.running
                return real(*arguments) if process is None else simulated(process, *arguments)

            return call

        return make

    def _stat(self, real: Any) -> Any:
        by_path = self._on_path(lambda process, path, follow_symlinks=True: process.stat(path))(real)

        def call(path: Any, **options: Any) -> Any:
            process = self.running
            if process is not None and isinstance(path, int) and path >= FIRST_DESCRIPTOR:
                return process.fstat(path)
            return by_path(path, **options)

        return call

    def _scandir(self, real: Any) -> Any:
        def call(path: Any = ".") -> Any:
            process = self.running
            if process is None or (isinstance(path, int) and path < FIRST_DESCRIPTOR):
                return real(path)
            folder = process.path_of(path) if isinstance(path, int) else _path(path)
            return Scan(process, folder) if folder.startswith(ROOT) else real(path)

        return call

    def _close(self, real: Any) -> Any:
        def call(fd: int) -> None:
            if fd < FIRST_DESCRIPTOR:
                real(fd)
                return
            computer = self.computer
            file = None if computer is None else computer.open_files.get(fd)
            if computer is None or file is None:
                # A file of a dead process, found by the garbage collector: the system has closed it long ago.
                return
            if file.owner is computer.running:
                file.owner.close(fd)
            else:
                file.owner.drop(fd)

        return call

    def _stream(self, real: Any) -> Any:
        def call(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            process = self.running
            if process is None or isinstance(file, int) or not _path(file).startswith(ROOT):
                return real(file, mode, *arguments, **options)
            if mode != "rb":
                raise NotImplementedError(f"open(…, {mode!r}) is not simulated")
            return io.BufferedReader(Reader(process, process.open(_path(file), os.O_RDONLY)))

        return call

    def _library(self, real: Any) -> Any:
        """`ctypes.CDLL(None)`, with a `renameat2` of the simulation."""

        def call(name: Any, *arguments: Any, **options: Any) -> Any:
            found = real(name, *arguments, **options)
            return found if name is not None or self.running is None else LibC(self, found)

        return call


class LibC:
    """The C library, as ctypes loads it."""

    def __init__(self, calls: SystemCalls, real: Any) -> None:
        self._calls = calls
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def renameat2(self, one_folder: int, one: bytes, other_folder: int, other: bytes, flags: int) -> int:
        process = self._calls.running
        assert process is not None
        assert flags == RENAME_EXCHANGE
        if process.computer.has_exchange:
            process.exchange(os.fsdecode(one), os.fsdecode(other))
            return 0
        ctypes.set_errno(errno.EINVAL)
        return -1


class Reader(io.RawIOBase):
    """A file that is read from its beginning to its end."""

    def __init__(self, process: Process, fd: int) -> None:
        self._process = process
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        got = self._process.read_into(self._fd, [memoryview(into)], self._at)
        self._at += got
        return got

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._fd)


class Scan:
    """What `os.scandir` returns."""

    def __init__(self, process: Process, path: str) -> None:
        self._entries = [Entry(f"{path}/{name}", name, node.is_folder) for name, node in process.entries(path).items()]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __next__(self) -> Entry:
        if not self._entries:
            raise StopIteration
        return self._entries.pop(0)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries = []


class Entry:
    """An entry of a directory; its kind is known without another call, as on Linux."""

    def __init__(self, path: str, name: str, is_folder: bool) -> None:
        self.path = path
        self.name = name
        self._is_folder = is_folder

    def __fspath__(self) -> str:
        return self.path

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._is_folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return not self._is_folder

    def is_symlink(self) -> bool:
        return False

    def is_junction(self) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(self.path)


def _path(path: Any) -> str:
    return path if type(path) is str else os.fsdecode(path)


def _random_bytes(process: Process, count: int) -> bytes:
    return process.computer.random.randbytes(count)


CALLS = SystemCalls()
