"""The calls that change files: those of a save, as the methods of `System`, and those of a run's directory."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ._descriptors import DIRECTORY, FLUSH, READ, pread, pwritev
from ._modules import MUST_CLOSE, fcntl, from_libc, msvcrt, posix

Found = TypeVar("Found")

# Errors by which a file system says that it does not have an operation. macOS distinguishes ENOTSUP and EOPNOTSUPP.
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY, errno.ENOLCK, errno.EPERM}
# Constants of Linux, and of Windows.
SYNC_FILE_RANGE_WRITE = 2
# Linux from 6.16 on takes it for ext4, XFS and Btrfs; older versions and other file systems refuse it.
RWF_DONTCACHE = 0x80
AT_FDCWD, RENAME_EXCHANGE = -100, 2
ERROR_LOCK_VIOLATION = 33


class System:
    """The system calls that a save uses."""

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        os.close(fd)

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def lock(self, fd: int, *, wait: bool) -> None:
        """Lock a file until it is closed, also by the end of the process.

        Raises BlockingIOError if another descriptor has the lock and `wait` is false, and OSError if the file system does
        not support locks.
        """
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        while not _lock_beyond_end(fd):
            if not wait:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            time.sleep(0.01)

    def free(self, directory: str) -> int:
        """Return how many bytes this user can still write there."""
        from shutil import disk_usage

        return disk_usage(directory).free

    def allocate(self, fd: int, nbytes: int) -> None:
        if not hasattr(os, "posix_fallocate"):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.posix_fallocate(fd, 0, nbytes)

    def write(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        return pwritev(fd, buffers, offset)

    def write_uncached(self, fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        """Write, and, if the system can, have the disk begin at once and the bytes leave the page cache when it has them."""
        if hasattr(os, "RWF_SYNC"):
            try:
                done: int = posix.pwritev(fd, buffers, offset, RWF_DONTCACHE)
            except OSError as error:
                # Others are raised: a signal handler's TimeoutError is an OSError, too.
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
            else:
                return done
        return self.write(fd, buffers, offset)

    def read(self, fd: int) -> bytes:
        """Return all of a small file."""
        return pread(fd, os.fstat(fd).st_size, 0)

    def own(self, fd: int, user: int, group: int) -> None:
        if hasattr(os, "fchown"):
            os.fchown(fd, user, group)

    def mode(self, fd: int, mode: int) -> None:
        # From Python 3.13 on, Windows has fchmod, which makes files read-only there, so that they cannot be deleted.
        if hasattr(os, "fchown"):
            posix.fchmod(fd, mode)

    def begin_sync(self, fd: int, offset: int, nbytes: int) -> None:
        """Start writing these bytes to the disk; errors are reported by `sync`."""
        begin = from_libc("sync_file_range")
        if begin is not None:
            begin(fd, ctypes.c_int64(offset), ctypes.c_int64(nbytes), SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        """Flush a file or directory to the disk."""
        if hasattr(fcntl, "F_FULLFSYNC"):
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            except OSError as error:
                # Network file systems do not support it.
                if error.errno not in UNSUPPORTED:
                    raise
            else:
                return
        try:
            os.fsync(fd)
        except OSError as error:
            # Some network file systems do not flush directories.
            if error.errno not in UNSUPPORTED or not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise

    def replace(self, source: str, target: str) -> None:
        _patiently(os.replace, source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; raise FileExistsError if the name is taken."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        _patiently(os.unlink, path)


SYSTEM = System()


def open_to_read(path: str) -> int:
    """Open a file of the caller; on Windows, when another process has finished to give it its name."""
    return _patiently(os.open, path, READ)


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a directory to a name that is not taken."""
    _patiently(os.rename, source, target)


# On Windows, virus scanners and indexers open new files for a moment, in which they cannot be renamed or deleted: without
# waiting, 4 % of 4,000 replacements failed (github.com/zarr-developers/zarr-python/pull/4358). Seconds between attempts.
PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if MUST_CLOSE else ()


def _patiently(call: Callable[..., Found], *arguments: Any) -> Found:
    for pause in PAUSES:
        try:
            return call(*arguments)
        except PermissionError:
            time.sleep(pause)
    return call(*arguments)


def flush_file(path: str | os.PathLike[str]) -> None:
    """Flush a file to the disk."""
    _flush(path, FLUSH)


def flush_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable, if this system can."""
    if DIRECTORY is not None:
        _flush(path, DIRECTORY)


def _flush(path: str | os.PathLike[str], flags: int) -> None:
    fd = os.open(path, flags)
    try:
        SYSTEM.sync(fd)
    finally:
        os.close(fd)


def exchange(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Swap two directories atomically; return whether the system supports it."""
    rename = from_libc("renameat2")
    return rename is not None and not rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


def _lock_beyond_end(fd: int) -> bool:
    """Lock a byte on Windows, where others cannot read or write locked bytes: at an offset that no file reaches.

    Returns whether the lock was free; raises OSError if the file system does not support locks.
    """
    windows: Any = ctypes
    handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
    if windows.WinDLL("kernel32", use_last_error=True).LockFile(handle, 0, 0x7FFFFFFF, 1, 0):
        return True
    if windows.get_last_error() == ERROR_LOCK_VIOLATION:
        return False
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
