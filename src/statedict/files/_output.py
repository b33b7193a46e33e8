"""A new file under its temporary name: writing into it, by the process that creates it and by others that help."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal, Self

from ._open import after
from .system import MOST_BUFFERS, WRITE, System

# Write buffers to a descriptor at an offset; return how many bytes were written.
Write = Callable[[int, Sequence[memoryview], int], int]
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
# Durable files of at least this many bytes do not stay in the page cache: see `System.write_uncached`.
LARGE = 32 << 20
# Size and alignment of writes. The kernel caches one of 128 KiB as one large folio instead of 32 pages, which is more than
# twice as fast; larger ones are not faster, and much slower on virtual machines that return free blocks to the host.
FOLIO = 128 << 10
# The same for uncached writes: the pages are reused, and each write is a request to the disk.
REQUEST = 2 << 20


class Output:
    """A file that is being written at `temporary`; errors name `path`, the file that was asked for."""

    def __init__(self, path: str, system: System, temporary: str = "", nbytes: int = 0) -> None:
        self.path = path
        self.temporary = temporary
        self.nbytes = nbytes
        self._system = system
        self._fd = -1
        self._flushed = 0

    def write(self, offset: int, chunks: Iterable[memoryview], durable: Durable = False) -> int:
        """Write the chunks, one after the other, at `offset`; return how many bytes."""
        flush, name = DURABILITY[durable]
        # Not with "rename", the files of a manager's checkpoint: a resume would read them from the disk.
        uncached = flush and name and self.nbytes >= LARGE
        write, most = (self._system.write_uncached, REQUEST) if uncached else (self._system.write, FOLIO)
        end = offset
        for at, buffers in aligned(offset, chunks, most):
            end = self._write_all(at, buffers, write)
            if flush and end >= self._flushed + EARLY:
                self._system.begin_sync(self._fd, self._flushed, end - self._flushed)
                self._flushed = end
        return end - offset

    def _write_all(self, offset: int, buffers: Sequence[memoryview], write: Write) -> int:
        """Write the buffers completely, and return the offset of their end."""
        end = offset + sum(map(len, buffers))
        while offset < end:
            with self._naming():
                done = write(self._fd, buffers, offset)
            if not done:
                raise OSError(errno.EIO, "write() wrote 0 bytes", self.path)
            offset += done
            if offset < end:
                buffers = after(buffers, done)
        return end

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
        fd, self._fd = self._fd, -1
        if fd >= 0:
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

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with suppress(OSError):
            self._close()


def aligned(offset: int, chunks: Iterable[memoryview], most: int = FOLIO) -> Iterator[tuple[int, list[memoryview]]]:
    """Group the chunks, which are consecutive from `offset`, into writes that end at multiples of `most` in the file.

    >>> [(at, len(buffers)) for at, buffers in aligned(FOLIO - 1, [memoryview(b"ab"), memoryview(b"c")])]
    [(131071, 1), (131072, 2)]
    """
    start, buffers = offset, list[memoryview]()
    for chunk in chunks:
        done = 0
        while done < len(chunk):
            piece = chunk[done : done + most - offset % most]
            done += len(piece)
            offset += len(piece)
            buffers.append(piece)
            if offset % most == 0 or len(buffers) == MOST_BUFFERS:
                yield start, buffers
                start, buffers = offset, []
    if buffers:
        yield start, buffers
