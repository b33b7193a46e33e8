"""Keep a file as it is while it is read."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

from ._descriptors import READ
from ._modules import fcntl, from_libc, signals

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
    statfs = from_libc("fstatfs")
    return 0 if statfs is None or statfs(fd, status) else int.from_bytes(status.raw[:4], sys.byteorder)
