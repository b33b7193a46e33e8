"""One manager writes to a directory at a time. The lock is the kernel's (flock), so it dies with its process."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from statedict.errors import LockedError

NAME = ".lock"


class Lock:
    """The lock of a run's directory; `release`, the end of this object or of the process gives it back.

    Raises LockedError where somebody else has it.
    """

    def __init__(self, directory: Path) -> None:
        self._fd = os.open(directory / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
            self.release()
            raise LockedError(str(directory), holder, own=holder == _holder()) from None
        except BaseException:
            self.release()
            raise
        # Who holds it is a courtesy, for which a full disk may have no room.
        with suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{_holder()}\n".encode(), 0)

    def __del__(self) -> None:
        self.release()

    def holds(self, directory: Path) -> bool:
        """Whether this is the lock of what lies at `directory` now: another directory may have taken its place."""
        try:
            there = (directory / NAME).stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def release(self) -> None:
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)


def _holder() -> str:
    return f"process {os.getpid()} on {os.uname().nodename}"
