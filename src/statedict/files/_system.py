"""The operating system, where systems differ: files, locks, signals and limits. No other file uses these calls.

What a system can do is found out from what Python's modules have there, not from its name, so that tests run this file over
simulated systems (`tests/systems`). `System` has the calls of a save, one method each, so that a test can substitute a
System that fails, writes partially or dies at the n-th call, for each n.

On Windows, an open file cannot be renamed, replaced or deleted (MUST_CLOSE), directories cannot be flushed, and os.kill ends
a process without calling its handlers. On macOS, fsync leaves the data in the drive's cache, and F_FULLFSYNC does not.
"""

from __future__ import annotations

import ctypes
import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Any


def _module(name: str) -> Any:
    """Return a module of the standard library; None if this system does not have it."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


fcntl, msvcrt, resource = map(_module, ("fcntl", "msvcrt", "resource"))

# Whether a file must be closed before it can be renamed, replaced or deleted.
MUST_CLOSE = msvcrt is not None
# The buffers of one vectored call: IOV_MAX of Linux and macOS.
MOST_BUFFERS = 1024
# For names that type checkers know on some systems only.
posix: Any = os
signals: Any = signal


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


def path_in_url(path: str) -> str:
    """Return the local path for the path of a `file://` URL: on Windows, `C:/a` for `/C:/a`."""
    return path[1:] if MUST_CLOSE and path[2:3] == ":" else path


# Reading and writing at an offset

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
        found: bytes = posix.pread(fd, nbytes, offset)
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


# Keeping a file as it is

# The numbers that statfs has for file systems to which only this machine writes: ext4, XFS, Btrfs, F2FS, ZFS, bcachefs,
# tmpfs, overlayfs. Before version 7.0, Linux grants leases on almost all others too.
LOCAL = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E, 0x01021994, 0x794C7630}


def lease(fd: int, until: ExitStack) -> Callable[[], bool] | None:
    """Keep a file from being changed until the stack is closed; return a function that returns False once a process waits
    to change it. None if this is not possible.

    A process that opens the file for writing, or truncates it, has to wait, at most /proc/sys/fs/lease-break-time (45 s).
    Linux allows this to the owner of a file that is not open for writing. It is not done if this process has other threads:
    a thread that opens the file while it holds the interpreter's lock, as torch.save does, would wait for the thread that
    has the lease, which needs that lock to go on.
    """
    if not hasattr(fcntl, "F_SETLEASE") or threading.active_count() > 1 or _file_system(fd) not in LOCAL:
        return None
    try:
        # A lease belongs to what `open` returns: of several that read the file, each needs its own.
        own = os.open(f"/proc/self/fd/{fd}", READ)
    except OSError:
        return None
    until.callback(os.close, own)
    try:
        # The signal when somebody waits. The default, SIGIO, ends the process; SIGURG is ignored, unless the program has a
        # handler. The lease sets its receiver, so that is reset after it.
        fcntl.fcntl(own, fcntl.F_SETSIG, signals.SIGURG)
        fcntl.fcntl(own, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, 0)
    except OSError:
        return None
    until.callback(_end_lease, own)
    return lambda: bool(fcntl.fcntl(own, fcntl.F_GETLEASE) == fcntl.F_RDLCK)


def _end_lease(fd: int) -> None:
    # Closing is not enough: a child that was forked meanwhile has the descriptor too.
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _file_system(fd: int) -> int:
    """Return the number of the file system's kind; 0 if it is not known."""
    status = ctypes.create_string_buffer(512)
    statfs = _from_libc("fstatfs")
    return 0 if statfs is None or statfs(fd, status) else int.from_bytes(status.raw[:4], sys.byteorder)


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
        if hasattr(os, "fchmod"):
            os.fchmod(fd, mode)

    def begin_sync(self, fd: int, offset: int, nbytes: int) -> None:
        """Start writing these bytes to the disk; errors are reported by `sync`."""
        begin = _from_libc("sync_file_range")
        if begin is not None:
            begin(fd, ctypes.c_int64(offset), ctypes.c_int64(nbytes), SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        """Flush a file or directory to the disk."""
        if hasattr(fcntl, "F_FULLFSYNC"):
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            except OSError as error:
                # Network file systems do not support it.
                if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                    raise
            else:
                return
        os.fsync(fd)

    def replace(self, source: str, target: str) -> None:
        _patiently(os.replace, source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; raise FileExistsError if the name is taken."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        _patiently(os.unlink, path)


SYSTEM = System()


def rename(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename a directory to a name that is not taken."""
    _patiently(os.rename, source, target)


# On Windows, virus scanners and indexers open new files for a moment, in which they cannot be renamed or deleted: without
# waiting, 4 % of 4,000 replacements failed (github.com/zarr-developers/zarr-python/pull/4358). Seconds between attempts.
PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if MUST_CLOSE else ()


def _patiently(call: Callable[..., None], *paths: str | os.PathLike[str]) -> None:
    for pause in PAUSES:
        try:
            return call(*paths)
        except PermissionError:
            time.sleep(pause)
    return call(*paths)


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
    rename = _from_libc("renameat2")
    return rename is not None and not rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)


# Constants of Linux, and of Windows.
SYNC_FILE_RANGE_WRITE = 2
# Linux from 6.16 on takes it for ext4, XFS and Btrfs; older versions and other file systems refuse it.
RWF_DONTCACHE = 0x80
AT_FDCWD, RENAME_EXCHANGE = -100, 2
ERROR_LOCK_VIOLATION = 33


def _from_libc(name: str) -> Any:
    """Return a function of the C library that `os` does not have; None if this system does not have it either."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except TypeError:  # Windows
        return None


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


# Limits of this process


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_files_limit() -> int | None:
    """Return how many files this process may open at once; None if there is no limit."""
    if resource is None:
        return None
    allowed: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed


def after_fork(call: Callable[[], object]) -> None:
    """Call this in each forked child, where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


# Signals

Handler = Callable[[int, FrameType | None], Any] | int | None
IGNORED = signal.SIG_IGN


def sigterm_handler() -> Handler:
    """Return the handler of SIGTERM; None if it was not installed from Python."""
    return signal.getsignal(signal.SIGTERM)


def handle_sigterm(handler: Handler) -> None:
    """Install a handler of SIGTERM; None: end the process. Only in the main thread."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


def call_sigterm_handler(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call a handler as if SIGTERM had arrived."""
    handler(signal.SIGTERM, None)


def send_sigterm() -> None:
    """Send SIGTERM to this process."""
    if hasattr(signal, "pthread_kill"):
        # To the process: the main thread may wait in a system call, which a signal to this thread would not interrupt.
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)


def die() -> None:
    """End this process at once, as a power failure would: nothing is flushed, closed or cleaned up. Its code is DIED."""
    os.kill(os.getpid(), KILL)


KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
# As `subprocess` reports it. Windows has the number of the signal for the exit code.
DIED = int(KILL if MUST_CLOSE else -KILL)


@contextmanager
def interrupted_after(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in this block after `seconds` of processor time.

    Does nothing in other threads than the main one, where a profiler uses the signal, and on systems without it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not (main and hasattr(signal, "setitimer") and signal.getsignal(signals.SIGPROF) == signal.SIG_DFL):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise error("it took too much processor time")

    signal.signal(signals.SIGPROF, stop)
    signals.setitimer(signals.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signals.setitimer(signals.ITIMER_PROF, 0)
        signal.signal(signals.SIGPROF, signal.SIG_DFL)
