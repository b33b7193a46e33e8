"""Windows: a file that somebody has open or mapped, or a directory that contains one, cannot be renamed or deleted.

Neither can one be deleted or replaced that is read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any

# Tests count the calls of the library, or stop it at one.
_list = os.listdir


def install() -> None:
    """Put this rule under the functions of `os`."""
    for name in ("rename", "replace"):
        setattr(os, name, _checked(getattr(os, name), 2))
    for name in ("unlink", "remove"):
        setattr(os, name, _checked(getattr(os, name), 1))


def _checked(real: Callable[..., Any], count: int) -> Callable[..., Any]:
    @wraps(real)
    def call(*arguments: Any, dir_fd: int | None = None, **options: Any) -> Any:
        places = [os.fspath(path) if dir_fd is None else f"/proc/self/fd/{dir_fd}/{path}" for path in arguments[:count]]
        if any(map(is_open, places)):
            raise PermissionError(13, "The process cannot access the file because it is being used", arguments[0])
        if is_read_only(places[-1]):
            raise PermissionError(13, "Access is denied", arguments[count - 1])
        return real(*arguments, **options) if dir_fd is None else real(*arguments, dir_fd=dir_fd, **options)

    return call


def is_read_only(path: str) -> bool:
    """Return whether there is a file at the path that its owner may not write."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and not mode & stat.S_IWUSR


def is_open(path: str) -> bool:
    """Return whether this process has the file, or one in the directory, open or mapped."""
    place = os.path.realpath(path) if not os.path.islink(path) else os.path.abspath(path)
    # How the line of a mapping goes on after the place, and its name in it begins.
    mapped, within = (f" {place}/", f"{place}/") if os.path.isdir(place) else (f" {place}\n", place)
    with open("/proc/self/maps") as maps:
        if mapped in maps.read():
            return True
    # rmtree opens directories, which Windows' version does not.
    return any(each.startswith(within) and not os.path.isdir(each) for each in _open_paths())


def _open_paths() -> Iterator[str]:
    for fd in _list("/proc/self/fd"):
        with suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{fd}")
