"""A new file under its temporary name: writing into it, by the process that creates it and by others that help."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Literal, Self

from ._direct import DirectWriter
from ._open import after
from ._system import WRITE, WRITE_DIRECT, System

Durable = Literal["full", "rename", "none"] | bool
# What to fsync: (the file before the rename, the directory after it).
DURABILITY: dict[Durable, tuple[bool, bool]] = {
    "full": (True, True),
    True: (True, True),
    "rename": (True, False),
    "none": (False, False),
    False: (False, False),
}
# Start writeback as soon as this many bytes were written, so that the final fsync has less to wait for.
EARLY = 16 << 20
# Durable files of at least this many bytes are written past the page cache.
DIRECT = 32 << 20


class Output:
    """A file that is being written at `temporary`; errors name `path`, the file that was asked for."""

    def __init__(self, path: str, system: System, temporary: str = "", nbytes: int = 0) -> None:
        self.path = path
        self.temporary = temporary
        self.nbytes = nbytes
        self._system = system
        self._fd = -1
        self._flushed = 0
        # The descriptor to write with past the page cache: None before the first durable write, -1 if that is not possible.
        self._direct_fd: int | None = None
        self._direct: DirectWriter | None = None

    def write(self, offset: int, buffers: Sequence[memoryview], durable: Durable = False) -> None:
        """Write all buffers (none of them empty), one after the other, at `offset`; possibly later, in another thread."""
        if self.is_direct(durable) and self._direct is not None:
            with self._naming():
                self._direct.write(offset, buffers)
            return
        self._write(offset, buffers)
        offset += sum(map(len, buffers))
        if DURABILITY[durable][0] and offset >= self._flushed + EARLY:
            self._system.begin_sync(self._fd, self._flushed, offset - self._flushed)
            self._flushed = offset

    def is_direct(self, durable: Durable) -> bool:
        """Whether writes go past the page cache: those of a large file that is durable, if the file system can.

        Not with "rename", the files of a manager's checkpoint: past the page cache, 512 MB take 1.5 times as long, and a
        resume would read them from the disk (docs/performance.md, "Saving large tensors").
        """
        if self._direct_fd is None and all(DURABILITY[durable]):
            self._direct_fd = -1
            if self.nbytes >= DIRECT and WRITE_DIRECT is not None:
                with suppress(OSError):
                    fd = self._direct_fd = self._system.open(self.temporary, WRITE_DIRECT)
                    self._direct = DirectWriter(partial(self._system.write, fd), self._write)
        return self._direct is not None

    def _write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        left = sum(map(len, buffers))
        while left:
            try:
                done = self._system.write(self._fd, buffers, offset)
            except OSError as error:
                self._name(error)
                raise
            if not done:
                raise OSError(errno.EIO, "write() wrote 0 bytes", self.path)
            offset += done
            left -= done
            if left:
                buffers = after(buffers, done)

    def _finish(self) -> None:
        """Wait until everything is written."""
        if self._direct is not None:
            self._direct.finish()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._name(error)
            raise

    def _name(self, error: OSError) -> None:
        """Let the error name the requested file: errors of a descriptor have no file name."""
        if error.filename in (None, self.temporary):
            error.filename = self.path
            if error.filename2 is not None:
                del error.filename2

    def _close(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        fds, self._fd, self._direct_fd = (self._fd, self._direct_fd), -1, None
        for fd in fds:
            if fd is not None and fd >= 0:
                self._system.close(fd)


class Contribution(Output):
    """A file that another process has created and will complete: a context manager in which this one writes into it."""

    def __enter__(self) -> Self:
        with self._naming():
            self._fd = self._system.open(self.temporary, WRITE)
        return self

    def flush(self, durable: Durable) -> None:
        """Flush what was written to the disk, if the file has to be durable."""
        if DURABILITY[durable][0]:
            with self._naming():
                self._system.sync(self._fd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._close()
