"""A local file, read through one file descriptor.

Only regular files are opened (a FIFO would block for ever, /dev/zero never ends), and only this descriptor is used
afterwards, so the file that was checked is the file that is read. Size and modification time are compared again after
every batch of reads, and before the file is mapped. Reading a mapping of a file that was truncated meanwhile kills the
process (SIGBUS), so a file is mapped only on request. Replacing a file, as the writer here does, is always safe.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Sequence

from ..errors import FileChangedError, UnknownFormatError
from ._file import Span, VectoredRead, check_inside, plan_reads, spread

# For fewer bytes, starting a second thread costs more than it saves.
PARALLEL = 8 << 20
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def kind_of(mode: int) -> str:
    """Describe a file that is not regular."""
    return KINDS.get(stat.S_IFMT(mode), "a special file")


class LocalFile:
    """The File at a path; raises OSError if it cannot be opened, UnknownFormatError if it is not a regular file."""

    far = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._fd = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            hint = (
                "pass the path of a file in it"
                if stat.S_ISDIR(status.st_mode)
                else "copy its content to a regular file first"
            )
            raise UnknownFormatError(
                f"this is {kind_of(status.st_mode)}, not a regular file", file=self.name, hint=hint
            )
        self.size = status.st_size
        self._opened = _stamp(status)
        self._mapped: memoryview | None = None

    def read(self, offset: int, nbytes: int) -> bytes:
        check_inside(self, offset, nbytes)
        found = os.pread(self._descriptor(), nbytes, offset)
        if len(found) == nbytes:
            return found
        # One system call returns at most 2 GB.
        into = memoryview(bytearray(nbytes))
        self._fill(VectoredRead(offset, nbytes, [into]))
        return bytes(into)

    def read_into(self, spans: Sequence[Span]) -> None:
        total = 0
        for offset, into in spans:
            check_inside(self, offset, len(into))
            total += len(into)
        self._descriptor()
        calls = plan_reads(spans)
        if total >= PARALLEL:
            spread(self._fill, calls)
        else:
            for call in calls:
                self._fill(call)
        self.check_unchanged()

    def mapped(self) -> memoryview:
        if self._mapped is None:
            self.check_unchanged()
            found = mmap.mmap(self._descriptor(), self.size, access=mmap.ACCESS_COPY) if self.size else bytearray()
            self._mapped = memoryview(found)
        return self._mapped

    def beside(self, name: str) -> LocalFile:
        return LocalFile(os.path.join(os.path.dirname(self.name), name))

    def check_unchanged(self) -> None:
        now = _stamp(os.fstat(self._descriptor()))
        if now != self._opened:
            what = "its size" if now[0] != self._opened[0] else "its modification time"
            raise FileChangedError(self.name, f"{what} has changed")

    def close(self, at: int = 0) -> None:
        fd, self._fd = self._fd, -1
        self._mapped = None
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def _descriptor(self) -> int:
        if self._fd < 0:
            raise ValueError(f"{self.name} has been closed; open it again")
        return self._fd

    def _fill(self, call: VectoredRead) -> None:
        offset, left, buffers = call
        while left:
            got = os.preadv(self._fd, buffers, offset)
            if not got:
                raise self._shrunk(offset)
            left -= got
            offset += got
            if left:
                buffers = after(buffers, got)

    def _shrunk(self, offset: int) -> FileChangedError:
        return FileChangedError(self.name, f"it now ends at byte {offset:,}")


def after(buffers: Sequence[memoryview], done: int) -> list[memoryview]:
    """Return the buffers without their first `done` bytes."""
    left = list(buffers)
    while left and done >= len(left[0]):
        done -= len(left.pop(0))
    if done:
        left[0] = left[0][done:]
    return left


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev
