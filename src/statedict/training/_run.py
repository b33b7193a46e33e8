"""The TrainingRun protocol: a run's checkpoints, in a directory or in an object store, and every change to them.

The manager, saving and resuming know a run by this protocol only. `run_directory` and `run_store` implement it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePath
from typing import Protocol

from statedict import files
from statedict.errors import UnknownFormatError
from statedict.formats.runs import FileFacts, Manifest, own_steps

from ._keep import Place, Saved


class RunLock(Protocol):
    """The right to change a run, which one manager has at a time. This is its whole surface."""

    def holds(self) -> bool:
        """Whether this locks the run that is there now; False if the run was deleted.

        Raises LockedError if another process has taken it over.
        """

    def release(self) -> None:
        """End it. It also ends with this object, or with the process."""


class Draft(Protocol):
    """A checkpoint that is being written, which readers do not see. This is its whole surface.

    Several ranks may write files into it: each has a Draft with the same key.

    Attributes:
        key: what distinguishes it from others of the same run.
        place: where it is, for messages.
        uploaded: the facts of the files written here.
    """

    @property
    def key(self) -> str: ...

    @property
    def place(self) -> Place: ...

    @property
    def uploaded(self) -> Mapping[str, FileFacts]: ...

    def write(self, name: str, parts: Sequence[files.Part]) -> None:
        """Write a file."""

    def share(self, source: Place, file: str, facts: FileFacts, name: str) -> bool:
        """Make `name` the same as a file of another checkpoint, without its bytes; return False if that is impossible."""

    def files(self, uploaded: Iterable[Mapping[str, FileFacts]]) -> dict[str, FileFacts]:
        """Return the facts of all files that are there; `uploaded` are those that all ranks have written."""

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and make the checkpoint visible, in one step. It replaces one of the same step.

        Raises AfterSaveError if that was done but something after it failed.
        """

    def abandon(self) -> None:
        """Delete what was written."""


class TrainingRun(Protocol):
    """A run's checkpoints and the changes to them. This is its whole surface.

    Only the holder of the lock may call `begin`, `remove`, `set_aside` and `tidy`; everyone else may pin and read.

    Attributes:
        removes_unlocked: whether everyone may also call `remove`.
        name: its path or URL, for messages.
        at: the path or the URL.
        real: equal for all names of the same run.
    """

    @property
    def name(self) -> str: ...

    @property
    def at(self) -> Place: ...

    @property
    def real(self) -> str: ...

    @property
    def removes_unlocked(self) -> bool: ...

    def exists(self) -> bool: ...

    def steps(self) -> dict[int, Place]:
        """Return all checkpoints, valid or not, oldest first; also those whose replacement was interrupted."""

    def saved(self) -> list[Saved]:
        """Return the checkpoints with a valid manifest, oldest first.

        Raises OSError if a manifest cannot be read at the moment: a list without that checkpoint would be wrong.
        """

    def manifest(self, place: Place) -> Manifest:
        """Return the manifest of a checkpoint; raise FormatError if it is missing, damaged, or of another step."""

    def has(self, place: Place) -> bool:
        """Whether a checkpoint is (still) there."""

    def lock(self, *, seize: bool) -> RunLock:
        """Lock the run, creating it if needed. `seize`: also from a process that may have died, if that cannot be known.

        Raises LockedError if another manager holds the lock.
        """

    def begin(self, step: int, *, durable: bool) -> Draft:
        """Start a checkpoint. `durable`: it is on the disk when it is finished."""

    def draft(self, key: str, *, durable: bool) -> Draft:
        """Return the draft that another rank has started."""

    def remove(self, place: Place) -> bool:
        """Delete a checkpoint, unless it was pinned just now; return whether it was deleted."""

    def pin(self, step: int) -> None:
        """Pin a step, durably, without the lock; raise UnknownNameError if the run does not have its checkpoint."""

    def unpin(self, step: int) -> None:
        """Remove the pin of a step, if there is one, durably."""

    def set_aside(self, place: Place) -> Place | None:
        """Rename a damaged checkpoint, so that it is never resumed from and never deleted; None if that is impossible."""

    def tidy(self) -> None:
        """Delete the remains of interrupted saves and deletions, and restore a checkpoint that one of them hides."""

    def translated(self) -> AbstractContextManager[None]:
        """Translate an OSError about the run into an error that says what to do."""

    def after_save(self, step: int, what: str) -> AbstractContextManager[None]:
        """Translate an OSError of something that follows a successful save into AfterSaveError, or RunGoneError."""


def open_run(at: str | os.PathLike[str]) -> TrainingRun:
    """Return the run in a directory or behind a URL.

    Raises SaveError for a URL that cannot be written to, UnknownFormatError for a checkpoint.
    """
    run = _run(at)
    for step in own_steps([name_of(run.at)]):
        raise UnknownFormatError(
            f"this is a checkpoint, not a run: pass its run, {str(above(run.at))!r}, and to resume from it, at={step}",
            file=run.name,
        )
    return run


def _run(at: str | os.PathLike[str]) -> TrainingRun:
    local = files.local_path(at)
    if local is None:
        from .run_store import StoreRun

        return StoreRun(os.fspath(at))
    from .run_directory import DirectoryRun

    # Absolute, so that a later change of the working directory does not matter.
    return DirectoryRun(Path(os.path.abspath(local)))


def inside(place: Place, name: str) -> Place:
    """Return the place of a file or folder in a checkpoint."""
    return place / name if isinstance(place, Path) else files.inside(place, name)


def name_of(place: Place) -> str:
    """Return the last part of a place: for a checkpoint, the name of its step."""
    return place.name if isinstance(place, PurePath) else place.rstrip("/").rpartition("/")[2]


def above(place: Place) -> Place:
    """Return the place of the run that a checkpoint is in."""
    return place.parent if isinstance(place, Path) else place.rstrip("/").rpartition("/")[0]
