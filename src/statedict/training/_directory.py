"""The changes that a run's directory goes through: a checkpoint appears, replaces another, goes, is set aside.

Each is one rename, with everything before it durable. Only these functions write there; the manager's lock is held.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from statedict.errors import AfterSaveError, DiskFullError, RunDeniedError, RunGoneError, StateDictError

from ._layout import DAMAGED, OLD, SAVING, TRASH, name_of, of_kind, step_of

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """The border where what the system says of a run's directory becomes an error that says what to do."""
    try:
        yield
    except StateDictError:
        raise
    except OSError as error:
        if error.errno in DENIED:
            raise RunDeniedError(str(directory), os.strerror(error.errno or 0)) from error
        if not os.path.isdir(directory):
            raise RunGoneError(str(directory)) from error
        if error.errno in FULL:
            # For a name, not for a file's content: those say how much they need.
            disk = os.statvfs(directory)
            raise DiskFullError(str(directory), needed=disk.f_frsize, free=disk.f_bavail * disk.f_frsize) from error
        raise


@contextmanager
def following(directory: Path, step: int, what: str) -> Iterator[None]:
    """The border for what follows a save that succeeded: a failure must not be taken for that of the save.

    Raises AfterSaveError, or RunGoneError where the directory is gone with the checkpoint.
    """
    try:
        yield
    except OSError as error:
        if not os.path.isdir(directory):
            raise RunGoneError(str(directory), saved=step) from error
        raise AfterSaveError(str(directory), step, what, str(error)) from error
    except Exception as error:
        # A rule of retention that is the caller's own function may raise anything.
        error.add_note(f"{directory}: step {step} was saved, but {what} failed")
        raise


def make(directory: Path) -> None:
    """The run's directory, durably there, with those above it."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in made:
        # Whose names may not be listed may not be flushed either.
        with suppress(PermissionError):
            sync(path.parent)


def begin(directory: Path, step: int) -> Path:
    """A new hidden directory for a checkpoint that is about to be written; the partner of `finish`."""
    path = directory / f"{SAVING}{name_of(step)}-{os.getpid()}-{token_hex(4)}"
    path.mkdir()
    return path


def finish(directory: Path, written: Path, step: int, *, durable: bool) -> None:
    """Give a written checkpoint its name; one of the same step that is there already is deleted when that is durable.

    `durable`: all of it is on the disk before, and its name after.

    Raises AfterSaveError where it has its name, but that could not be flushed.
    """
    final = directory / name_of(step)
    if durable:
        _sync_all(written)
    replaced: Path | None = None
    if not final.exists():
        written.rename(final)
    elif _exchange(written, final):
        replaced = written
    else:
        replaced = directory / f"{OLD}{name_of(step)}-{token_hex(4)}"
        final.rename(replaced)
        written.rename(final)
    if durable:
        with following(directory, step, "flushing its name to the disk"):
            sync(directory)
    if replaced is not None:
        _delete(replaced)


def abandon(path: Path) -> None:
    """Delete a checkpoint whose writing failed."""
    _delete(path)


def remove(directory: Path, path: Path) -> None:
    """Delete a checkpoint: it loses its name first, so that nobody sees half of it."""
    trash = directory / f"{TRASH}{path.name}-{token_hex(4)}"
    path.rename(trash)
    sync(directory)
    _delete(trash)


def set_aside(directory: Path, path: Path) -> Path | None:
    """Rename a damaged checkpoint so that it is never resumed from and never deleted; None where that is not allowed."""
    target = directory / f"{DAMAGED}{path.name}-{token_hex(4)}"
    try:
        path.rename(target)
    except OSError:
        return None
    return target


def tidy(directory: Path) -> None:
    """Delete what saves and deletions left when their process died, and put back what a replacement had moved away."""
    for path in of_kind(directory, OLD):
        step = step_of(path.name)
        if step is not None and not (directory / name_of(step)).exists():
            path.rename(directory / name_of(step))
        else:
            _delete(path)
    for path in of_kind(directory, SAVING, TRASH):
        _delete(path)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_all(written: Path) -> None:
    """Make everything in a directory durable: every file first, then the names of them."""
    for folder, _, names in os.walk(written, topdown=False, onerror=fail):
        for name in names:
            fd = os.open(Path(folder, name), os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        sync(Path(folder))


def fail(error: OSError) -> None:
    """Raise the error that a walk through a directory met, and would pass over."""
    raise error


def _delete(path: Path) -> None:
    # What cannot be deleted now is tried again by the next manager's `tidy`: a save must not fail because of it.
    with suppress(OSError):
        shutil.rmtree(path)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
