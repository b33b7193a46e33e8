"""What Python has on this system: modules, functions of the C library, and names that type checkers know on few systems."""

from __future__ import annotations

import ctypes
import os
import signal
from importlib import import_module
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
# For names that type checkers know on some systems only.
posix: Any = os
signals: Any = signal


def from_libc(name: str) -> Any:
    """Return a function of the C library that `os` does not have; None if this system does not have it either."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except TypeError:  # Windows
        return None
