"""A lock on a run's directory: a lock of the system on a file, which ends with the process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from statedict.errors import LockedError
from statedict.files import system
from statedict.formats.runs import LOCK

from .._holder import holder


class Lock:
    """The lock of a run's directory. It ends with `release`, with this object, or with the process.

    Raises LockedError if another manager holds it, and OSError if the file system does not have locks.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = os.open(directory / LOCK, system.LOCKED, 0o666)
        try:
            system.SYSTEM.lock(self._fd, wait=False)
        except BlockingIOError:
            by = system.pread(self._fd, 200, 0).decode(errors="replace").strip()
            self.release()
            raise LockedError(str(directory), by, own=by == holder()) from None
        except OSError as error:
            self.release()
            if error.errno not in system.UNSUPPORTED:
                raise
            reason = (
                "this disk has no locks, which keep two managers apart; save on another disk, or in an object store"
            )
            raise OSError(error.errno, reason, str(directory)) from error
        except BaseException:
            self.release()
            raise
        # The holder's name only improves the error message, so a full disk must not make locking fail.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            system.pwritev(self._fd, [memoryview(f"{holder()}\n".encode())], 0)

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
