"""Find the newest valid checkpoint: every file in its manifest exists and has the size and CRC-32 listed there.

Damaged newer checkpoints are skipped, with the reason, and never deleted. A checkpoint counts as damaged only if it was
read and is wrong: a file that cannot be read at the moment (permission, stale handle, too many open files) raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from statedict.errors import FormatError, LimitError, LockedError, UnknownNameError, printable
from statedict.files import open_folder
from statedict.formats import runs
from statedict.formats.runs import Manifest, NewerVersionError

from .._keep import Place
from .._run import TrainingRun, name_of
from ..saving._ownership import Ownership
from ._retry import retried

# Maximum number of searches: one restarts if the training process deletes or replaces the checkpoint that is being read.
LOOKS = 10


@dataclass(frozen=True, slots=True)
class Resumed:
    """The result of `resume`.

    Attributes:
        step, metrics: as passed to `save`.
        values: the plain values passed to `save`, by name.
        path: the checkpoint's directory, or its URL.
        reports: object name (`"model"`, `"optimizers/0"`) → its LoadReport.
        passed_over: newer checkpoints that are damaged, and why.

    >>> import tempfile
    >>> from statedict import CheckpointManager
    >>> with CheckpointManager(tempfile.mkdtemp(), random=False) as manager:
    ...     _ = manager.save(3, {"loss": 0.5}, epoch=1)
    ...     resumed = manager.resume()
    >>> resumed.step, resumed.values["epoch"]
    (3, 1)
    """

    step: int
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    path: Place
    reports: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()


class PassedOver(NamedTuple):
    """A damaged checkpoint that was skipped, and the reason.

    >>> from pathlib import Path
    >>> print(PassedOver(3, Path("run/3"), "the file is truncated"))
    step 3 (run/3): the file is truncated
    """

    step: int
    path: Place
    reason: str

    def __str__(self) -> str:
        return printable(f"step {self.step} ({self.path}): {self.reason}")


class Found(NamedTuple):
    """The checkpoint to resume from, and the damaged newer ones."""

    path: Place | None
    manifest: Manifest | None
    passed_over: list[PassedOver]

    def refuse_damaged(self, run: str) -> None:
        """Raise FormatError if there are checkpoints but all are damaged: such a run is not a new one."""
        if self.path is None and self.passed_over:
            listed = "; ".join(map(str, self.passed_over))
            raise FormatError(f"all checkpoints are damaged: {listed}", file=run)


def find(run: TrainingRun, ownership: Ownership, *, deep: bool = True) -> Found:
    """Find the checkpoint to resume from, and set the damaged newer ones aside. `deep`: as for `verify`.

    If all are damaged, none is renamed: a second attempt must not mistake the run for a new one.
    """
    ownership.check_exists()
    found = newest(run, deep=deep)
    # A checkpoint whose replacement was interrupted has another name, which locking restores.
    if found.path is None or (not found.passed_over and runs.own_steps([name_of(found.path)])):
        return found
    try:
        ownership.hold(take_over=False)
    except (LockedError, OSError):
        # Another manager saves here: the damaged ones stay as they are.
        return found
    # Search again: now that this manager holds the lock, no other one can replace what is found to be damaged.
    found = newest(run, deep=deep)
    return found._replace(passed_over=[_set_aside(run, entry) for entry in found.passed_over])


def find_step(run: TrainingRun, step: int, *, deep: bool = True) -> Found:
    """Return the checkpoint of a step; raises UnknownNameError if the run has none, FormatError if it is damaged."""

    def search() -> Found | None:
        steps = retried(run.steps)
        if step not in steps:
            raise UnknownNameError(str(step), among=f"the steps of {run.name}", near=list(map(str, sorted(steps)[-3:])))
        manifest = retried(partial(verify, run, steps[step], deep=deep))
        return None if manifest is None else Found(steps[step], manifest, [])

    return _searched(run, search)


def newest(run: TrainingRun, *, deep: bool = True) -> Found:
    """Find the newest valid checkpoint. If `deep`, reads every byte of it once.

    Raises OSError, MemoryError or LimitError if a checkpoint cannot be read at the moment, and NewerVersionError for one
    that a newer version of this library wrote: these may be valid.
    """
    return _searched(run, lambda: _search(run, deep=deep))


def _searched(run: TrainingRun, search: Callable[[], Found | None]) -> Found:
    for _ in range(LOOKS):
        found = search()
        if found is not None:
            return found
    raise FormatError(
        f"checkpoints were deleted or replaced while they were read, {LOOKS} times in a row; try again", file=run.name
    )


def _search(run: TrainingRun, *, deep: bool) -> Found | None:
    """Search once; return None if the list of checkpoints is out of date."""
    passed_over: list[PassedOver] = []
    for step, path in reversed(retried(run.steps).items()):
        try:
            manifest = retried(partial(verify, run, path, deep=deep))
            return None if manifest is None else Found(path, manifest, passed_over)
        except (LimitError, NewerVersionError):
            raise
        except FormatError as error:
            passed_over.append(PassedOver(step, path, str(error)))
        except (OSError, MemoryError) as error:
            error.add_note(
                f"step {step} cannot be read at the moment, so it may be undamaged: nothing was loaded or renamed. Try "
                f"again; to resume from an older checkpoint, move {path} to another directory"
            )
            raise
    return Found(None, None, passed_over)


def _set_aside(run: TrainingRun, entry: PassedOver) -> PassedOver:
    moved = run.set_aside(entry.path)
    return entry if moved is None else entry._replace(path=moved)


def verify(run: TrainingRun, path: Place, *, deep: bool = True) -> Manifest | None:
    """Return the manifest of a checkpoint after a check of it and (if `deep`) of every file that it lists.

    Returns None if the checkpoint was deleted or replaced meanwhile.

    Raises FormatError if it is damaged, OSError if it cannot be read at the moment.
    """
    manifest = None
    try:
        manifest = run.manifest(path)
        if deep:
            check_files(path, manifest, manifest.files)
    except (FormatError, FileNotFoundError):
        if is_replaced(run, path, manifest):
            return None
        raise
    return manifest


def is_replaced(run: TrainingRun, path: Place, manifest: Manifest | None) -> bool:
    """Whether a checkpoint is no longer the one with this manifest (None: the one without a valid manifest).

    A process that saves may have deleted it, or saved the same step again.
    """
    if not run.has(path):
        return True
    try:
        now = run.manifest(path)
        # As bytes, because NaN in a metric or value does not equal itself.
        return manifest is None or runs.dump(now) != runs.dump(manifest)
    except (FormatError, FileNotFoundError):
        return manifest is not None


def check_files(path: Place, manifest: Manifest, names: Iterable[str]) -> None:
    """Read these files of a checkpoint and compare them with the manifest; raises FormatError or OSError."""
    folder = open_folder(str(path))
    try:
        for name in names:
            runs.check_file(folder, name, manifest.files[name])
    finally:
        folder.close()
