"""The newest checkpoint that verifies: every file its manifest lists is there, with the size and the CRC-32 it says.

Those that do not are passed over, newest first, with the reason; they are never deleted. Only what was read and is wrong is
damage: a file that cannot be read now (no permission, a stale handle, too many open files) ends the search with an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from statedict.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    LockedError,
    TruncatedError,
    UnknownNameError,
    printable,
)

from . import _directory, _layout, _manifest
from ._claim import Claim
from ._manifest import FileFacts, Manifest, NewerVersionError
from ._patience import patiently

# How often the search begins again because a checkpoint was deleted under it by the process that trains.
LOOKS = 10


@dataclass(frozen=True, slots=True)
class Resumed:
    """What `resume` gives: where the run stands.

    Attributes:
        step, metrics: as they were given to `save`.
        values: the plain values given to `save`, by name.
        path: the checkpoint's directory.
        reports: object name (`"model"`, `"optimizers/0"`) → the report of its load.
        passed_over: newer checkpoints that did not verify, and why.

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
    path: Path
    reports: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()


class PassedOver(NamedTuple):
    """A checkpoint that was not resumed from, and why.

    >>> from pathlib import Path
    >>> print(PassedOver(3, Path("run/3"), "it ends early"))
    step 3 (run/3): it ends early
    """

    step: int
    path: Path
    reason: str

    def __str__(self) -> str:
        return printable(f"step {self.step} ({self.path}): {self.reason}")


class Found(NamedTuple):
    """The checkpoint to resume from, and the newer ones that were passed over."""

    path: Path | None
    manifest: Manifest | None
    passed_over: list[PassedOver]

    def refuse_damaged(self, directory: Path) -> None:
        """Raise FormatError where there are checkpoints, and none of them verifies: that is not a first run."""
        if self.path is None and self.passed_over:
            listed = "; ".join(map(str, self.passed_over))
            raise FormatError(f"none of the checkpoints verifies: {listed}", file=str(directory))


def find(directory: Path, claim: Claim) -> Found:
    """The checkpoint to resume from; those that were passed over are set aside.

    Where none verifies all stay where they are: a second attempt must not take the run for a new one.
    """
    claim.check_there()
    if _layout.of_kind(directory, _layout.OLD):
        # A save that replaced a step died between two renames: that puts the step back.
        with suppress(LockedError, OSError):
            claim.hold(take_over=False)
    found = newest(directory)
    if found.path is None:
        return found
    return found._replace(passed_over=[_set_aside(directory, entry, claim) for entry in found.passed_over])


def find_step(directory: Path, step: int) -> Found:
    """The checkpoint of a step; raises UnknownNameError where the run has none, FormatError where it does not verify."""
    steps = patiently(lambda: _layout.steps(directory))
    if step not in steps:
        raise UnknownNameError(str(step), among="the steps of the run", near=list(map(str, sorted(steps)[-3:])))
    return Found(steps[step], patiently(partial(verify, steps[step])), [])


def _set_aside(directory: Path, entry: PassedOver, claim: Claim) -> PassedOver:
    """Move a damaged checkpoint out of the way, unless somebody else saves here (then it stays as it is)."""
    try:
        claim.hold(take_over=False)
    except (LockedError, OSError):
        return entry
    moved = _directory.set_aside(directory, entry.path)
    return entry if moved is None else entry._replace(path=moved)


def newest(directory: Path) -> Found:
    """The newest checkpoint that verifies, if any. Reads every byte of it once.

    Raises OSError, MemoryError or LimitError for a checkpoint that cannot be read now, and NewerVersionError for one that a
    newer version of this library wrote: whether those are damaged is not known.
    """
    for _ in range(LOOKS):
        found = _search(directory)
        if found is not None:
            return found
    raise FormatError("its checkpoints are deleted faster than they can be read", file=str(directory))


def _search(directory: Path) -> Found | None:
    """What `newest` returns; None where a checkpoint was deleted while it was read, so that the list is out of date."""
    passed_over: list[PassedOver] = []
    for step, path in reversed(patiently(lambda: _layout.steps(directory)).items()):
        try:
            return Found(path, patiently(partial(verify, path)), passed_over)
        except (LimitError, NewerVersionError):
            raise
        except FormatError as error:
            if not path.is_dir():
                return None
            passed_over.append(PassedOver(step, path, str(error)))
        except (OSError, MemoryError) as error:
            error.add_note(
                f"step {step} cannot be read now, which does not mean that it is damaged: nothing was loaded or renamed. "
                f"Try again; to resume from an older checkpoint instead, move {path} away"
            )
            raise
    return Found(None, None, passed_over)


def verify(path: Path) -> Manifest:
    """The manifest of a checkpoint, whose files were all checked against it; raises FormatError or OSError."""
    manifest = _manifest.read(path)
    if _layout.name_of(manifest.step) != path.name:
        raise FormatError(
            f"the manifest is of step {manifest.step}, and the directory is called {path.name}", file=str(path)
        )
    for name, expected in manifest.files.items():
        file = path / name
        found = _size(file)
        if found != expected.nbytes:
            raise TruncatedError(f"{found:,} bytes of {expected.nbytes:,} are there", file=str(file))
        found_facts = FileFacts.of(file)
        if found_facts != expected:
            raise ChecksumError(
                f"its CRC-32 is {found_facts.crc32:08x}, and {expected.crc32:08x} was written", file=str(file)
            )
    return manifest


def _size(file: Path) -> int:
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise TruncatedError("the manifest lists this file, and it is not there", file=str(file))
    return status.st_size
