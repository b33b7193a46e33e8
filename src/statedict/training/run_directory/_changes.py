"""The changes to a run's directory: a checkpoint is added, replaced, deleted, set aside or pinned.

Each change is a single rename, made after everything before it is durable. Nothing else writes in the directory, and the
caller holds the manager's lock, except for pins.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from statedict.errors import (
    AfterSaveError,
    DiskFullError,
    RunDeniedError,
    RunGoneError,
    StateDictError,
    UnknownNameError,
)
from statedict.files import system
from statedict.formats.runs import name_of

from . import _pins
from ._layout import DAMAGED, OLD, SAVING, TRASH, of_kind, step_of

DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
FULL = {errno.ENOSPC, errno.EDQUOT}
# The maximum size of a directory entry on the usual file systems, in bytes.
BLOCK = 4096


@contextmanager
def translated(directory: Path) -> Iterator[None]:
    """Translate an OSError about the run's directory into an error that says what to do."""
    try:
        yield
    except StateDictError:
        raise
    except OSError as error:
        if error.errno in DENIED:
            reason = os.strerror(error.errno or 0) + (", or a file in it is open" if system.MUST_CLOSE else "")
            raise RunDeniedError(str(directory), reason) from error
        if os.path.isfile(directory):
            raise NotADirectoryError(
                errno.ENOTDIR, "a run is a directory, and this is a file", str(directory)
            ) from error
        if not os.path.isdir(directory):
            raise RunGoneError(str(directory)) from error
        if error.errno in FULL:
            # The disk had no space for a directory entry. (A full disk while writing a file raises DiskFullError already.)
            free = system.SYSTEM.free(str(directory))
            raise DiskFullError(str(directory), needed=BLOCK, free=free) from error
        raise


@contextmanager
def after_save(directory: Path, step: int, what: str) -> Iterator[None]:
    """Translate the errors of steps that follow a successful save, so that they are not mistaken for a failed save.

    Raises AfterSaveError, or RunGoneError if the directory was deleted together with the checkpoint.
    """
    try:
        yield
    except OSError as error:
        if not os.path.isdir(directory):
            raise RunGoneError(str(directory), saved=step) from error
        raise AfterSaveError(str(directory), step, what, str(error)) from error
    except Exception as error:
        # A retention policy may be the caller's own function, which can raise anything.
        error.add_note(f"{directory}: step {step} was saved, but {what} failed")
        raise


def make(directory: Path) -> None:
    """Create the run's directory and its parents, durably."""
    missing = [path for path in directory.parents if not path.exists()]
    # The directory itself is flushed in any case: the process that created it may have died before it could.
    for path in (*reversed(missing), directory):
        path.mkdir(exist_ok=True)
        # A directory that may not be listed cannot be flushed either.
        with suppress(PermissionError):
            sync(path.parent)


def begin(directory: Path, step: int) -> Path:
    """Create a hidden directory for a checkpoint that is about to be written. Partner of `finish`."""
    path = directory / f"{SAVING}{name_of(step)}-{os.getpid()}-{token_hex(4)}"
    path.mkdir()
    return path


def finish(directory: Path, written: Path, step: int, *, durable: bool) -> None:
    """Rename a complete checkpoint to its final name. An existing checkpoint of the same step is then deleted.

    `durable`: flush all files before the rename, and the directory after it.

    Raises AfterSaveError if the checkpoint was renamed but the directory could not be flushed.
    """
    final = directory / name_of(step)
    if durable:
        _sync_all(written)
    replaced: Path | None = None
    if not final.exists():
        system.rename(written, final)
    elif system.exchange(written, final):
        replaced = written
    else:
        replaced = directory / f"{OLD}{name_of(step)}-{token_hex(4)}"
        system.rename(final, replaced)
        system.rename(written, final)
    if durable:
        with after_save(directory, step, "flushing its directory entry to the disk"):
            sync(directory)
    if replaced is not None:
        _delete(replaced)


def abandon(path: Path) -> None:
    """Delete a checkpoint that could not be completed."""
    _delete(path)


def remove(directory: Path, path: Path) -> bool:
    """Delete a checkpoint, unless it was pinned just now; return whether it was deleted.

    It is renamed first, so that a half-deleted one never has a step's name; and once more before that, to a name from which
    `tidy` restores it, so that `pin` and this function cannot miss each other.
    """
    token = token_hex(4)
    doubtful, trash = (directory / f"{prefix}{path.name}-{token}" for prefix in (OLD, TRASH))
    system.rename(path, doubtful)
    if step_of(path.name) in _pins.pinned(directory):
        system.rename(doubtful, path)
        return False
    system.rename(doubtful, trash)
    sync(directory)
    _delete(trash)
    return True


def pin(directory: Path, step: int) -> None:
    """Pin a step, durably, without the lock. Partner of `unpin`.

    Raises UnknownNameError if the run does not have the step's checkpoint, or is deleting it at the moment.
    """
    file = _pins.file_of(directory, step)
    with translated(directory):
        file.parent.mkdir(exist_ok=True)
        file.touch()
        sync(file.parent)
    if not (directory / name_of(step)).is_dir():
        unpin(directory, step)
        raise UnknownNameError(str(step), among=f"the steps of {directory}")
    with translated(directory):
        # The processes that created the checkpoint and `.pins` may not have flushed their names yet, or have died.
        sync(directory)


def unpin(directory: Path, step: int) -> None:
    """Remove the pin of a step, if there is one, durably. Partner of `pin`."""
    file = _pins.file_of(directory, step)
    with translated(directory):
        file.unlink(missing_ok=True)
        if file.parent.is_dir():
            sync(file.parent)


def set_aside(directory: Path, path: Path) -> Path | None:
    """Rename a damaged checkpoint so that it is never resumed from and never deleted; None if renaming is not permitted."""
    target = directory / f"{DAMAGED}{path.name}-{token_hex(4)}"
    try:
        system.rename(path, target)
    except OSError:
        return None
    return target


def tidy(directory: Path) -> None:
    """Delete the remains of interrupted saves and deletions, and restore a checkpoint whose replacement was interrupted.

    The process that left them may have died before it could flush its last rename: it is flushed before anything is deleted.
    """
    left = of_kind(directory, OLD, SAVING, TRASH)
    if left:
        sync(directory)
    for path in left:
        step = step_of(path.name) if path.name.startswith(OLD) else None
        if step is not None and not (directory / name_of(step)).exists():
            system.rename(path, directory / name_of(step))
        else:
            _delete(path)


def sync(directory: Path) -> None:
    """Flush a directory, which makes its entries durable."""
    system.flush_directory(directory)


def _sync_all(written: Path) -> None:
    """Flush a directory tree: first the files, then the directories that list them."""
    for folder, _, names in os.walk(written, topdown=False, onerror=fail):
        for name in names:
            system.flush_file(Path(folder, name))
        sync(Path(folder))


def fail(error: OSError) -> None:
    """Raise an error that `os.walk` would ignore."""
    raise error


def _delete(path: Path) -> None:
    # A failed deletion must not fail the save: the next manager's `tidy` tries again.
    with suppress(OSError):
        shutil.rmtree(path)
