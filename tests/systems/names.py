"""Windows and macOS: names that differ by case only are the same file, whose name stays as it was created.

On macOS, names that differ in how letters are composed are the same, too. Neither system has names that are not Unicode.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any
from unicodedata import normalize

# Functions of `os`, and how many of their first arguments are paths.
FUNCTIONS = {
    **dict.fromkeys(("open", "stat", "lstat", "mkdir", "rmdir", "unlink", "remove", "listdir", "scandir", "utime"), 1),
    **dict.fromkeys(("rename", "replace", "link"), 2),
}


def install(system: str) -> None:
    """Put these rules under the functions of `os`, and under `open`."""
    fold = FOLDS[system]
    for name, count in FUNCTIONS.items():
        setattr(os, name, _resolving(getattr(os, name), count, fold))
    io.open = builtins.open = _resolving(builtins.open, 1, fold)


Fold = Callable[[str], str]
FOLDS: dict[str, Fold] = {"windows": str.casefold, "macos": lambda name: normalize("NFD", name.casefold())}


def _resolving(real: Callable[..., Any], count: int, fold: Fold) -> Callable[..., Any]:
    @wraps(real)
    def call(*arguments: Any, **options: Any) -> Any:
        paths = [existing(path, fold) for path in arguments[:count]]
        if count == 2 and len(paths) == 2 and os.path.basename(paths[0]) == os.path.basename(paths[1]):
            # A file may be renamed to its own name in other letters.
            paths[1] = arguments[1]
        return real(*paths, *arguments[count:], **options)

    return call


_list, _status = os.listdir, os.lstat
# The files of Linux and Python themselves, which no test names in other letters.
OTHERS = ("/proc", sys.prefix, sys.base_prefix)


def existing(path: Any, fold: Fold) -> Any:
    """Return the path of the file with that name in any letters; the path itself if there is none.

    Raises OSError if it is not Unicode.
    """
    if not isinstance(path, (str, os.PathLike)):
        return path
    text = os.fspath(path)
    if not isinstance(text, str) or text.startswith(OTHERS):
        return path
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), text)
    with suppress(OSError):
        _status(text)
        return path
    directory, name = os.path.split(text)
    try:
        real_names = _list(directory or ".")
    except OSError:
        return path
    folded = fold(name)
    return next((os.path.join(directory, each) for each in real_names if fold(each) == folded), path)
