"""Flags of `os.open`, and reading and writing at an offset of a descriptor."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ._modules import MUST_CLOSE, posix

# The buffers of one vectored call: IOV_MAX of Linux and macOS.
MOST_BUFFERS = 1024
# The bytes of one call: macOS refuses more (EINVAL), where other systems read less.
MOST_BYTES = (1 << 31) - 1


def _flags(*names: str) -> int:
    """Combine flags of `os.open`, without those that this system does not have. (Descriptors are never inherited.)"""
    return sum(getattr(os, name, 0) for name in (*names, "O_BINARY"))


# Flags to open: a file of the caller, to read it;
READ = _flags("O_RDONLY", "O_NONBLOCK", "O_NOCTTY")
# a file of our own, to read it, to write it, or to lock it;
READ_OWN = _flags("O_RDONLY", "O_NOFOLLOW", "O_NONBLOCK")
WRITE = _flags("O_WRONLY", "O_NOFOLLOW")
LOCKED = _flags("O_RDWR", "O_CREAT", "O_NOFOLLOW")
# a new file; an old one, only to keep it from being freed;
CREATE = _flags("O_RDWR", "O_CREAT", "O_EXCL", "O_NOFOLLOW")
HOLD = _flags("O_PATH", "O_NOFOLLOW", "O_NONBLOCK")
# a file to flush it; a directory to flush it (None if the system cannot).
FLUSH = _flags("O_RDWR" if MUST_CLOSE else "O_RDONLY")
DIRECTORY = _flags("O_RDONLY", "O_DIRECTORY") if hasattr(os, "O_DIRECTORY") else None


def names_file(path: str) -> bool:
    """Return whether an absolute path is that of a file. On Windows, `aux.pt` may be a device; `a:b` is a stream of `a`."""
    return not MUST_CLOSE or not (":" in os.path.basename(path) or os.path.abspath(path).startswith("\\\\.\\"))


def path_in_url(path: str) -> str:
    """Return the local path for the path of a `file://` URL: on Windows, `C:/a` for `/C:/a`."""
    return path[1:] if MUST_CLOSE and path[2:3] == ":" else path


# Where these calls have to move the descriptor's position, threads take turns.
_TURNS = [threading.Lock() for _ in range(64)]


@contextmanager
def _at(fd: int, offset: int) -> Iterator[None]:
    with _TURNS[fd % len(_TURNS)]:
        os.lseek(fd, offset, os.SEEK_SET)
        yield


if hasattr(os, "preadv"):

    def pread(fd: int, nbytes: int, offset: int) -> bytes:
        """Return at most `nbytes` bytes from `offset`."""
        found: bytes = posix.pread(fd, min(nbytes, MOST_BYTES), offset)
        return found

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Fill the buffers, one after the other, from `offset`; return how many bytes there were."""
        done: int = posix.preadv(fd, buffers, offset)
        return done

    def pwritev(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Write the buffers, one after the other, at `offset`; return how many bytes were written."""
        done: int = posix.pwritev(fd, buffers, offset)
        return done

else:

    def pread(fd: int, nbytes: int, offset: int) -> bytes:
        with _at(fd, offset):
            return os.read(fd, nbytes)

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        with _at(fd, offset), io.FileIO(fd, closefd=False) as file:
            return _one_by_one(file.readinto, buffers)

    def pwritev(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        with _at(fd, offset):
            return _one_by_one(lambda buffer: os.write(fd, buffer), buffers)


def _one_by_one(call: Callable[[memoryview], int], buffers: Sequence[memoryview]) -> int:
    total = 0
    for buffer in buffers:
        done = call(buffer)
        total += done
        if done < len(buffer):
            break
    return total
