"""Find the newest valid checkpoint: every file in its manifest exists and has the size and CRC-32 listed there.

Damaged newer checkpoints are skipped, with the reason, and never deleted. A checkpoint counts as damaged only if it was
read and is wrong: a file that cannot be read at the moment (permission, stale handle, too many open files) raises an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from statedict.errors import FormatError, LimitError, LockedError, UnknownNameError, printable
from statedict.files import open_folder
from statedict.formats import runs
from statedict.formats.runs import Manifest, NewerVersionError

from .._keep import Place
from .._run import Run, content_of
from ..saving._ownership import Ownership
from ._retry import retried

# Maximum number of searches: a search restarts if the training process deletes the checkpoint that is being read.
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
        """Raise FormatError if there are checkpoints but all are damaged: that must not be taken for a first run."""
        if self.path is None and self.passed_over:
            listed = "; ".join(map(str, self.passed_over))
            raise FormatError(f"all checkpoints are damaged: {listed}", file=run)


def find(run: Run, ownership: Ownership) -> Found:
    """Find the checkpoint to resume from, and set the damaged newer ones aside.

    If all are damaged, none is renamed: a second attempt must not take the run for a new one.
    """
    ownership.check_exists()
    if run.is_interrupted():
        # Locking restores the checkpoint.
        with suppress(LockedError, OSError):
            ownership.hold(take_over=False)
    found = newest(run)
    if found.path is None:
        return found
    return found._replace(passed_over=[_set_aside(run, entry, ownership) for entry in found.passed_over])


def find_step(run: Run, step: int) -> Found:
    """Return the checkpoint of a step; raises UnknownNameError if the run has none, FormatError if it is damaged."""
    steps = retried(run.steps)
    if step not in steps:
        raise UnknownNameError(str(step), among="the steps of the run", near=list(map(str, sorted(steps)[-3:])))
    return Found(steps[step], retried(partial(verify, run, steps[step])), [])


def _set_aside(run: Run, entry: PassedOver, ownership: Ownership) -> PassedOver:
    """Rename a damaged checkpoint, unless another manager saves here (then it stays as it is)."""
    try:
        ownership.hold(take_over=False)
    except (LockedError, OSError):
        return entry
    moved = run.set_aside(entry.path)
    return entry if moved is None else entry._replace(path=moved)


def newest(run: Run) -> Found:
    """Find the newest valid checkpoint. Reads every byte of it once.

    Raises OSError, MemoryError or LimitError if a checkpoint cannot be read at the moment, and NewerVersionError for one
    that a newer version of this library wrote: these may be valid.
    """
    for _ in range(LOOKS):
        found = _search(run)
        if found is not None:
            return found
    raise FormatError(
        f"checkpoints were deleted while they were read, {LOOKS} times in a row; try again", file=run.name
    )


def _search(run: Run) -> Found | None:
    """Search once; return None if a checkpoint was deleted while it was read, so that the list is out of date."""
    passed_over: list[PassedOver] = []
    for step, path in reversed(retried(run.steps).items()):
        try:
            return Found(path, retried(partial(verify, run, path)), passed_over)
        except (LimitError, NewerVersionError):
            raise
        except FormatError as error:
            if not run.has(path):
                return None
            passed_over.append(PassedOver(step, path, str(error)))
        except (OSError, MemoryError) as error:
            error.add_note(
                f"step {step} cannot be read at the moment, so it may be undamaged: nothing was loaded or renamed. Try "
                f"again; to resume from an older checkpoint, move {path} to another directory"
            )
            raise
    return Found(None, None, passed_over)


def verify(run: Run, path: Place) -> Manifest:
    """Check every file of a checkpoint and return its manifest; raises FormatError or OSError."""
    manifest = run.manifest(path)
    folder = open_folder(str(content_of(path, manifest)))
    try:
        for name, expected in manifest.files.items():
            runs.check_file(folder, name, expected)
    finally:
        folder.close()
    return manifest
