"""Simulated operating systems, under `src/statedict/files/system`: `pytest --system=windows tests/files`.

That package is loaded over modules that lack what the system lacks, so that it makes its own choices. What a system does for
every program (an open file stays, names differ by more than case) is put under Python's functions themselves. The programs
that a test starts with `tests.forked` run on the simulated system, too; its other processes run on the real one.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

from . import names, sharing

SOURCE = Path(__file__).parents[2] / "src/statedict/files/system/__init__.py"
NAME = "statedict.files.system"
# Where processes that are started find the name of the system.
VARIABLE = "SIMULATED_SYSTEM"
O_BINARY = 1 << 30
# F_FULLFSYNC calls on the simulated macOS.
FULL_FLUSHES: list[int] = []
# Numbers of errors on the simulated Windows, the latest last.
LAST_ERRORS: list[int] = []


class Facade(ModuleType):
    """A module without some of its names, and with others in their place."""

    def __init__(self, real: ModuleType, hidden: str = "", **own: Any) -> None:
        super().__init__(real.__name__)
        self._real, self._hidden = real, {*hidden.split()}
        vars(self).update(own)

    def __getattr__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"this system has no {self.__name__}.{name}")
        return getattr(self._real, name)


def windows() -> dict[str, ModuleType | None]:
    """A system without POSIX: an open file can be neither renamed nor deleted, and upper and lower case are the same."""
    hidden = (
        "pread preadv pwrite pwritev posix_fallocate fchown statvfs uname register_at_fork "
        "sched_getaffinity process_cpu_count O_NONBLOCK O_NOFOLLOW O_NOCTTY RWF_SYNC O_DIRECTORY O_PATH O_CLOEXEC"
    )
    signals = "pthread_kill pthread_sigmask setitimer ITIMER_PROF SIGPROF SIGKILL SIGPIPE"
    return {
        "os": Facade(os, hidden, open=_windows_open, fsync=_windows_fsync, kill=_terminate, O_BINARY=O_BINARY),
        "signal": Facade(signal, signals),
        "ctypes": Facade(
            ctypes,
            CDLL=_refuse_none,
            WinDLL=lambda name, use_last_error: Facade(ctypes, LockFile=_lock_file),
            get_last_error=lambda: LAST_ERRORS[-1],
        ),
        "msvcrt": Facade(ModuleType("msvcrt"), get_osfhandle=lambda fd: fd),
        "fcntl": None,
        "resource": None,
    }


def macos() -> dict[str, ModuleType | None]:
    """A system with POSIX, without Linux's additions: fsync does not reach the disk, and case does not matter."""
    return {
        "os": Facade(os, "posix_fallocate sched_getaffinity process_cpu_count RWF_SYNC O_PATH"),
        "fcntl": Facade(fcntl, "F_SETLEASE F_GETLEASE F_SETSIG", fcntl=_full_flush, F_FULLFSYNC=51),
        "ctypes": Facade(ctypes, CDLL=lambda name: Facade(ctypes, "renameat2 sync_file_range")),
    }


SYSTEMS: dict[str, Callable[[], dict[str, ModuleType | None]]] = {"linux": dict, "macos": macos, "windows": windows}


def load(name: str, **changed: Any) -> Any:
    """Return `statedict.files.system` as it is on that system, where these functions of `os` are changed."""
    return _load(name, **changed)[NAME]


def _load(name: str, **changed: Any) -> dict[str, ModuleType]:
    """Return the package, and the modules in it, by name."""
    modules = SYSTEMS[name]()
    modules["os"] = Facade(modules.get("os") or os, **changed)
    spec = importlib.util.spec_from_file_location(NAME, SOURCE)
    package = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, modules):
        for each in _of_package():
            del sys.modules[each]
        sys.modules[NAME] = package
        spec.loader.exec_module(package)
        return {each: sys.modules[each] for each in _of_package()}


def _of_package() -> list[str]:
    return [each for each in sys.modules if f"{each}.".startswith(f"{NAME}.")]


def install(name: str) -> None:
    """Run the library on a simulated system from now on."""
    if NAME in sys.modules:
        raise RuntimeError("the system must be chosen before statedict is imported")
    os.environ[VARIABLE] = name
    if name == "windows":
        sharing.install()
    sys.modules.update(_load(name))
    names.install(name)
    from statedict.state import _process

    # Neither system has files that say how much memory is available.
    _process.MEMORY = _process.LIMITS = _process.GROUP = "/nowhere"


def _windows_open(path: Any, flags: int, mode: int = 0o777) -> int:
    assert flags & O_BINARY, f"{path} is opened in text mode, in which line ends are translated"
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return os.open(path, flags & ~O_BINARY, mode)


def _windows_fsync(fd: int) -> None:
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(9, "Bad file descriptor")
    os.fsync(fd)


def _terminate(process: int, number: int) -> None:
    os.kill(process, signal.SIGKILL)


def _refuse_none(name: str | None) -> ctypes.CDLL:
    if name is None:
        raise TypeError("a path is expected")
    return ctypes.CDLL(name)


def _lock_file(handle: ctypes.c_void_p, low: int, high: int, nbytes_low: int, nbytes_high: int) -> int:
    try:
        fcntl.flock(handle.value or 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        LAST_ERRORS.append(33 if isinstance(error, BlockingIOError) else 50)
        return 0
    return 1


def _full_flush(fd: int, command: int) -> None:
    FULL_FLUSHES.append(command)
    os.fsync(fd)
