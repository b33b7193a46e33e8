"""All system calls of a save, one method each.

The writer uses the system only through this class, so that a test can substitute a System that fails, writes partially
or dies at the n-th call, for each n.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import lru_cache


class System:
    """The system calls that a save uses."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags | os.O_CLOEXEC, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def lock(self, fd: int, *, wait: bool) -> None:
        """Lock for this process; raise BlockingIOError if another process holds the lock and `wait` is false."""
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def free(self, directory: str) -> int:
        """Return how many bytes this user can still write there."""
        space = os.statvfs(directory)
        return space.f_bavail * space.f_frsize

    def allocate(self, fd: int, nbytes: int) -> None:
        os.posix_fallocate(fd, 0, nbytes)

    def write(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.pwritev(fd, buffers, offset)

    def read(self, fd: int) -> bytes:
        """Return all of a small file."""
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def own(self, fd: int, user: int, group: int) -> None:
        os.fchown(fd, user, group)

    def mode(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def begin_sync(self, fd: int, offset: int, nbytes: int) -> None:
        """Start writing these bytes to the disk; errors are reported by `sync`."""
        begin = _sync_file_range()
        if begin is not None:
            begin(fd, offset, nbytes, SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; raise FileExistsError if the name is taken."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)


@lru_cache(maxsize=1)
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return Linux's sync_file_range(2), which `os` does not have; None on other systems."""
    import ctypes

    found = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return found


SYNC_FILE_RANGE_WRITE = 2
SYSTEM = System()
