"""The file arguments of torch.save and torch.load, and the errors for invalid ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OLDEST_DILL = (0, 3, 1)


def path_of(f: Any) -> Any:
    """Convert a path to a string; return other objects unchanged."""
    return os.fspath(f) if is_path(f) else f


def is_path(f: object) -> bool:
    return isinstance(f, (str, os.PathLike))


def check_dill(pickle_module: Any) -> None:
    """Raise ValueError for a version of dill that is too old to support persistent ids."""
    if pickle_module is None or pickle_module.__name__ != "dill":
        return
    wanted = ".".join(map(str, OLDEST_DILL))
    found = pickle_module.__version__
    try:
        new_enough = tuple(int(part) for part in found.split(".")[:3]) >= OLDEST_DILL
    except (ValueError, AttributeError):
        warnings.warn(
            f"'dill' module version string is malformed '{found}' and cannot be compared with tuple {OLDEST_DILL}, "
            "but continuing assuming that requirement is met",
            stacklevel=3,
        )
        return
    if not new_enough:
        raise ValueError(
            f"'torch' supports dill >= {wanted}, but you have dill {found}. Please upgrade dill or switch to 'pickle'"
        )


def check_writable(f: Any, *, new: bool) -> None:
    """Raise AttributeError or TypeError unless `f` is a path or can be written to."""
    if is_path(f):
        return
    if not hasattr(f, "write"):
        raise AttributeError("expected 'f' to be string, path, or a file-like object with a 'write' attribute")
    if new and not callable(f.write):
        raise TypeError(f"Buffer of {str(type(f)).strip('<>')} has no callable attribute 'write'")


def check_seekable(f: Any) -> None:
    """Raise the error of `f.seek` or `f.tell` with advice, if `f` is not seekable."""
    try:
        f.seek(f.tell())
    except (OSError, AttributeError) as error:
        if "seek" in str(error) or "tell" in str(error):
            raise type(error)(
                f"{error}. You can only torch.load from a file that is seekable. Please pre-load the data into a buffer "
                "like io.BytesIO and try to load from it instead."
            ) from error
        raise


@contextmanager
def written(target: Any) -> Iterator[Any]:
    """The file to write: a path is opened (and truncated), a file object is flushed at the end."""
    if not is_path(target):
        yield target
        target.flush()
        return
    with open(target, "wb", buffering=0) as file:
        yield file


@contextmanager
def opened(f: Any) -> Iterator[Any]:
    """The file to read, at its current position: a path is opened, a file object must be seekable."""
    if not is_path(f):
        check_seekable(f)
        yield f
        return
    with open(f, "rb") as file:
        yield file
