"""Windows and macOS: names that differ by case only are the same file, whose name stays as it was created."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
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


_list = os.listdir


def existing(path: Any) -> Any:
    """Return the path of the file with that name in any letters; the path itself if there is none."""
    if not isinstance(path, (str, os.PathLike)):
        return path
    text = os.fspath(path)
    if not isinstance(text, str) or text.startswith("/proc"):
        return path
    directory, name = os.path.split(text)
    try:
        real_names = _list(directory or ".")
    except OSError:
        return path
    if name in real_names:
        return path
    folded = name.casefold()
    return next((os.path.join(directory, each) for each in real_names if each.casefold() == folded), path)
