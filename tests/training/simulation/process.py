"""A process on the simulated computer: its open files, its locks, and the system calls that it makes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .disk import Node, error

if TYPE_CHECKING:
    from .computer import Computer

# Descriptors of simulated files. Real ones are smaller.
FIRST_DESCRIPTOR = 1 << 20
# Timestamps of real file systems are this coarse (ns), so two changes can have the same.
COARSE = 10_000_000
BLOCK = 512
USER, GROUP = os.geteuid(), os.getegid()


@dataclass(eq=False, slots=True)
class OpenFile:
    """What a descriptor stands for."""

    owner: Process
    node: Node
    path: str
    flags: int


class Process:
    """One process; `name` is what the log calls it.

    Attributes:
        pid: its number.
        is_dead: whether it has ended. Its files are then closed and its locks released.
        faults: how many of its requests have failed.
    """

    def __init__(self, computer: Computer, name: str) -> None:
        self.computer = computer
        self.pid = next(computer.pids)
        self.name = name
        self.is_dead = False
        self.faults = 0
        self._disk = computer.medium

    def __str__(self) -> str:
        return f"{self.name} ({self.pid})"

    def die(self) -> None:
        """End: close all files, without a word to the code that runs."""
        self.is_dead = True
        for fd in [fd for fd, file in self.computer.open_files.items() if file.owner is self]:
            self.drop(fd)

    # paths

    def stat(self, path: str) -> os.stat_result:
        self._step("stat", path)
        return _status(self._disk.find(path))

    def listdir(self, path: str) -> list[str]:
        self._step("list", path)
        return list(self._disk.list(path))

    def entries(self, path: str) -> dict[str, Node]:
        """What `os.scandir` finds: names, and what they stand for."""
        self._step("list", path)
        return dict(self._disk.list(path))

    def mkdir(self, path: str) -> None:
        self._step("mkdir", path)
        self._disk.create(path, folder=True)

    def rmdir(self, path: str) -> None:
        self._step("rmdir", path)
        self._disk.rmdir(path)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        self._disk.unlink(path)

    def rename(self, source: str, target: str) -> None:
        self._step("rename", source, target)
        self._disk.rename(source, target)

    def exchange(self, one: str, other: str) -> None:
        self._step("exchange", one, other)
        self._disk.exchange(one, other)

    def link(self, source: str, target: str) -> None:
        self._step("link", source, target)
        self._disk.link(source, target)

    def utime(self, path: str) -> None:
        self._step("utime", path)
        self._disk.touch(self._disk.find(path))

    def free(self, path: str) -> os.statvfs_result:
        self._step("statvfs", path)
        return os.statvfs_result((BLOCK, BLOCK, 1 << 30, 1 << 30, 1 << 30, 1 << 20, 1 << 20, 1 << 20, 0, 255))

    # descriptors

    def open(self, path: str, flags: int) -> int:
        self._step("open", path)
        try:
            node = self._disk.find(path)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            node = self._disk.create(path)
        else:
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise error(errno.EEXIST, path)
            if flags & os.O_DIRECTORY and not node.is_folder:
                raise error(errno.ENOTDIR, path)
        if flags & os.O_TRUNC:
            self._disk.resize(node, 0)
        fd = next(self.computer.descriptors)
        self.computer.open_files[fd] = OpenFile(self, node, path, flags)
        return fd

    def close(self, fd: int) -> None:
        self._step("close", self._file(fd).path)
        self.drop(fd)

    def fstat(self, fd: int) -> os.stat_result:
        self._step("fstat", self._file(fd).path)
        return _status(self._file(fd).node)

    def path_of(self, fd: int) -> str:
        """The path that a directory was opened by."""
        return self._file(fd).path

    def lock(self, fd: int, *, wait: bool) -> None:
        file = self._file(fd)
        self._step("lock", file.path)
        if file.node.lock not in (None, file) and not wait:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        self.computer.wait(self, lambda: file.node.lock in (None, file))
        file.node.lock = file

    def read_into(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        file = self._file(fd)
        self._step("read", file.path)
        at = offset
        for buffer in buffers:
            part = file.node.content[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
        return at - offset

    def read(self, fd: int, nbytes: int, offset: int) -> bytes:
        file = self._file(fd)
        self._step("read", file.path)
        return bytes(file.node.content[offset : offset + nbytes])

    def write(self, fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        data = b"".join(buffers)
        self._step("write", self._file(fd).path, f"({len(data)} bytes at {offset})")
        self._disk.write(self._file(fd).node, offset, data)
        return len(data)

    def resize(self, fd: int, nbytes: int) -> None:
        self._step("resize", self._file(fd).path, f"to {nbytes} bytes")
        self._disk.resize(self._file(fd).node, nbytes)

    def allocate(self, fd: int, nbytes: int) -> None:
        self._step("allocate", self._file(fd).path, f"{nbytes} bytes")
        node = self._file(fd).node
        self._disk.resize(node, max(nbytes, len(node.content)))

    def fsync(self, fd: int) -> None:
        self._step("fsync", self._file(fd).path)
        self._disk.sync(self._file(fd).node)

    def sleep(self, seconds: float) -> None:
        """Let others run for a while."""
        self._step("sleep", f"{seconds} s")
        self.computer.sleep(self, seconds)

    def request(self, verb: str, key: str) -> None:
        """Make a request to an object store, which is as good a moment as any for other processes, or for a crash."""
        self._step(verb, key)

    # parts

    def _step(self, call: str, *arguments: str) -> None:
        self.computer.step(self, call, *arguments)

    def _file(self, fd: int) -> OpenFile:
        found = self.computer.open_files.get(fd)
        if self.is_dead:
            self.computer.step(self, "")
        if found is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found

    def drop(self, fd: int) -> None:
        """Close a file without a call that may be interrupted."""
        file = self.computer.open_files.pop(fd)
        if file.node.lock is file:
            file.node.lock = None


def _status(node: Node) -> os.stat_result:
    mode = (stat.S_IFDIR | 0o755) if node.is_folder else (stat.S_IFREG | 0o644)
    modified, changed = (time // COARSE * COARSE for time in (node.modified, node.changed))
    whole = modified // 10**9
    return os.stat_result(
        (mode, node.number, 1, node.names, USER, GROUP, len(node.content), whole, whole, changed // 10**9),
        {"st_atime_ns": modified, "st_mtime_ns": modified, "st_ctime_ns": changed},
    )
