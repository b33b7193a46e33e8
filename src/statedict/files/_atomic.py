"""A file is replaced as a whole or not at all, and outlives kills, full disks and power cuts.

Theory of operation. The new file is written beside the old one under a name of its own, `.NAME.statedict-PID-RAND.tmp`,
its space reserved first, and takes the old one's place by a rename, which is atomic. It is on the disk before (fsync of
the file), and so is the rename after (fsync of the directory). It is locked meanwhile: when the process dies the lock
goes, and the next save of the same name knows the stray for one, and deletes it. An error of fsync is final: the kernel
may have dropped the pages, so that a second try would succeed and lie.

Freeing a large file takes as long as writing it (its pages are given back one by one, and those on their way to the disk
waited for), so the old one is held open over the rename and let go by a thread: a save over 525 MB takes 150 ms, not 300.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

from ..errors import DiskFullError, SaveError
from ._local import after, kind_of
from ._system import System
from ._url import is_url, redacted

Durable = Literal["full", "rename", "none"] | bool

FULL = {errno.ENOSPC, errno.EDQUOT}
UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK, errno.EPERM}
# A name has at most 255 bytes; the temporary one is the file's own, cut to this, and 40 more.
STEM = 200
# Old files of at least this many bytes are freed by a thread.
LARGE = 16 << 20
# As soon as this much has been written, the disk begins with it: with fsync at the end 525 MB take 210–270 ms, not 320–380.
EARLY = 16 << 20


class Replacement:
    """A new file beside `path`: a context in which it is written, and then committed or left behind without a trace.

    Raises SaveError where `path` is something else than a regular file, DiskFullError where `nbytes` do not fit, OSError
    for whatever else the system refuses.
    """

    def __init__(self, path: str | os.PathLike[str], nbytes: int, system: System) -> None:
        if is_url(path):
            raise SaveError(
                f"{redacted(os.fspath(path))}: a URL cannot be replaced as a whole or not at all; save to a local file and "
                "copy that, or write to a file object: with fsspec.open(url, 'wb') as file: statedict.save(state, file)"
            )
        self.path = os.path.realpath(os.fspath(path))
        self.nbytes = nbytes
        self._system = system
        self._directory, name = os.path.split(self.path)
        self._stem = f".{os.fsdecode(os.fsencode(name)[:STEM])}.statedict-"
        self._fd = -1
        self._temporary = ""
        self._old_nbytes = 0
        self._begun = 0

    def __enter__(self) -> Self:
        old = self._status()
        self._old_nbytes = 0 if old is None else old.st_size
        self._delete_strays()
        try:
            self._create(0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o666)
            if old is not None:
                self._inherit(old)
            self._reserve()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._temporary:
            with suppress(OSError):
                self._system.unlink(self._temporary)
        with suppress(OSError):
            self._close()
        if isinstance(error, OSError) and not isinstance(error, DiskFullError) and error.errno in FULL:
            raise DiskFullError(self.path, needed=self.nbytes, free=self._system.free(self._directory)) from error

    def write(self, offset: int, buffers: Sequence[memoryview], durable: Durable = False) -> None:
        """Write all of the buffers (none is empty), one after the other, at `offset`."""
        left = sum(map(len, buffers))
        while left:
            done = self._system.write(self._fd, buffers, offset)
            if not done:
                raise OSError(errno.EIO, "the system wrote nothing", self.path)
            offset += done
            left -= done
            if left:
                buffers = after(buffers, done)
        if DURABILITY[durable][0] and offset >= self._begun + EARLY:
            self._system.begin_sync(self._fd, self._begun, offset - self._begun)
            self._begun = offset

    def sync(self, durable: Durable) -> None:
        """Force the new file to the disk, if `durable` says so; what is left for `commit` then is quick."""
        if DURABILITY[durable][0]:
            self._system.sync(self._fd)

    def commit(self, durable: Durable) -> None:
        """Put the new file in the old one's place."""
        self.sync(durable)
        old = self._held()
        try:
            self._system.replace(self._temporary, self.path)
        finally:
            if old >= 0:
                _let_go(self._system, old)
        self._temporary = ""
        self._close()
        if DURABILITY[durable][1]:
            self._sync_directory()

    def _status(self) -> os.stat_result | None:
        try:
            status = self._system.stat(self.path)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise SaveError(f"{self.path}: this is {kind_of(status.st_mode)}, not a regular file; save to a new name")
        return status

    def _create(self, mode: int) -> None:
        while True:
            name = f"{self._stem}{os.getpid()}-{os.urandom(4).hex()}.tmp"
            path = os.path.join(self._directory, name)
            try:
                self._fd = self._system.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            except (FileNotFoundError, PermissionError) as error:
                # About the directory, not about a name that nobody asked for.
                raise type(error)(error.errno, f"{error.strerror} to save in", self._directory) from None
            self._temporary = path
            self._lock()
            if self._system.fstat(self._fd).st_nlink:
                return
            # Another save took it for a stray, between its creation and its lock.
            self._close()

    def _lock(self) -> None:
        try:
            self._system.lock(self._fd, wait=True)
        except OSError as error:
            # Some network file systems have no locks: there, strays are never deleted, which is safe.
            if error.errno not in UNSUPPORTED:
                raise

    def _delete_strays(self) -> None:
        stray = re.compile(re.escape(self._stem) + r"\d+-[0-9a-f]{8}\.tmp")
        with suppress(OSError):
            for name in self._system.list(self._directory):
                if stray.fullmatch(name):
                    self._delete_if_dead(os.path.join(self._directory, name))

    def _delete_if_dead(self, path: str) -> None:
        with suppress(OSError):
            fd = self._system.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                self._system.lock(fd, wait=False)
                self._system.unlink(path)
            finally:
                self._system.close(fd)

    def _inherit(self, old: os.stat_result) -> None:
        """The old file's mode, and its owner where this user may give it."""
        new = self._system.fstat(self._fd)
        if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
            with suppress(PermissionError):
                self._system.own(self._fd, old.st_uid, old.st_gid)
        self._system.mode(self._fd, stat.S_IMODE(old.st_mode))

    def _reserve(self) -> None:
        if not self.nbytes:
            return
        try:
            self._system.allocate(self._fd, self.nbytes)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            if self._system.free(self._directory) < self.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path) from error

    def _held(self) -> int:
        """A descriptor that keeps a large old file from being freed by the rename; -1 where there is none."""
        if self._old_nbytes >= LARGE:
            with suppress(OSError):
                return self._system.open(self.path, HOLD | os.O_NOFOLLOW | os.O_NONBLOCK)
        return -1

    def _sync_directory(self) -> None:
        fd = self._system.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._system.sync(fd)
        finally:
            self._system.close(fd)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._system.close(fd)


def _let_go(system: System, fd: int) -> None:
    def close() -> None:
        with suppress(OSError):
            system.close(fd)

    try:
        threading.Thread(target=close, name="statedict-free", daemon=True).start()
    except RuntimeError:  # The interpreter is being shut down, or there are too many threads.
        close()


# What holds a file without reading it, where the system has that.
HOLD = getattr(os, "O_PATH", os.O_RDONLY)
# What is forced to the disk: (the file before the rename, the directory after it).
DURABILITY: dict[Durable, tuple[bool, bool]] = {
    "full": (True, True),
    True: (True, True),
    "rename": (True, False),
    "none": (False, False),
    False: (False, False),
}
