"""One manager writes to a directory at a time. The lock is the kernel's (flock), so it dies with its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from statedict.errors import LockedError


class Lock:
    """The lock of a run's directory; `release` or the end of the process gives it back."""

    def __init__(self, directory: Path) -> None:
        path = directory / ".lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 200, 0).decode(errors="replace").strip()
            self.release()
            raise LockedError(str(directory), holder) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
