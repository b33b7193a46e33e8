"""Windows and macOS: names that differ by case only are the same file, whose name stays as it was created."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

# Functions of `os`, and how many of their first arguments are paths.
FUNCTIONS = {
    **dict.fromkeys(("open", "stat", "lstat", "mkdir", "rmdir", "unlink", "remove", "listdir", "scandir", "utime"), 1),
    **dict.fromkeys(("rename", "replace", "link"), 2),
}


def install() -> None:
    """Put this rule under the functions of `os`, and under `open`."""
    for name, count in FUNCTIONS.items():
        setattr(os, name, _resolving(getattr(os, name), count))
    io.open = builtins.open = _resolving(builtins.open, 1)


def _resolving(real: Callable[..., Any], count: int) -> Callable[..., Any]:
    @wraps(real)
    def call(*arguments: Any, **options: Any) -> Any:
        paths = [existing(path) for path in arguments[:count]]
        if count == 2 and len(paths) == 2 and os.path.basename(paths[0]) == os.path.basename(paths[1]):
            # A file may be renamed to its own name in other letters.
            paths[1] = arguments[1]
        return real(*paths, *arguments[count:], **options)

    return call


_list, _status = os.listdir, os.lstat
# The files of Linux and Python themselves, which no test names in other letters.
OTHERS = ("/proc", sys.prefix, sys.base_prefix)


def existing(path: Any) -> Any:
    """Return the path of the file with that name in any letters; the path itself if there is none."""
    if not isinstance(path, (str, os.PathLike)):
        return path
    text = os.fspath(path)
    if not isinstance(text, str) or text.startswith(OTHERS):
        return path
    with suppress(OSError):
        _status(text)
        return path
    directory, name = os.path.split(text)
    try:
        real_names = _list(directory or ".")
    except OSError:
        return path
    folded = name.casefold()
    return next((os.path.join(directory, each) for each in real_names if each.casefold() == folded), path)
