"""A lock on a run's directory. It is a `flock`, which the kernel releases when the process ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from statedict.errors import LockedError
from statedict.formats.runs import LOCK

from .._holder import holder


class Lock:
    """The lock of a run's directory. It ends with `release`, with this object, or with the process.

    Raises LockedError if another manager holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            by = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
            self.release()
            raise LockedError(str(directory), by, own=by == holder()) from None
        except BaseException:
            self.release()
            raise
        # The holder's name only improves the error message, so a full disk must not make locking fail.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{holder()}\n".encode(), 0)

    def __del__(self) -> None:
        self.release()

    def holds(self) -> bool:
        """Whether this locks the directory that is at its path now, which may have been replaced by another one."""
        try:
            there = (self._directory / LOCK).stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def release(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)
