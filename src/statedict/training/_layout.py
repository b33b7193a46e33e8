"""Where a run's checkpoints lie: one directory each, complete or not there.

    runs/a/                      the directory given to the manager
      .lock                      held while a manager writes here; it dies with its process
      step-0000001200/           a checkpoint: plain files and a manifest
        manifest.json  model.pt  optimizer.pt  random.pt
      .saving-step-…-PID-RAND/   one that is being written, or was when its process died
      .trash-step-…-RAND/        one that is being deleted
      .old-step-…-RAND/          one that is being replaced, where the system cannot swap two names at once
      damaged-step-…-RAND/       one that did not verify; never resumed from, never deleted

A checkpoint gets its name by one rename, after everything in it is durable; it loses it by one rename, before anything in
it is deleted. So whatever has a step's name is complete, unless the disk damaged it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from statedict.errors import FormatError

from . import _manifest
from ._keep import Saved

STEP = re.compile(r"step-([0-9]{1,19})")
LARGEST_STEP = 10**19 - 1
SAVING, TRASH, OLD, DAMAGED = ".saving-", ".trash-", ".old-", "damaged-"


def name_of(step: int) -> str:
    """The directory name of a step; sorts as the steps do."""
    return f"step-{step:010d}"


def steps(directory: Path) -> dict[int, Path]:
    """Every directory that has a step's name, oldest first, whole or not."""
    return {step: directory / name for step, name in sorted(_steps(directory).items())}


def names(directory: Path) -> list[str]:
    """The names of the directories that `steps` gives: paths of 10,000 would take 50 ms to be made."""
    return [name for _, name in sorted(_steps(directory).items())]


def _steps(directory: Path) -> dict[int, str]:
    try:
        with os.scandir(directory) as entries:
            matches = [STEP.fullmatch(entry.name) for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = ((int(match[1]), match[0]) for match in matches if match)
    return {step: name for step, name in found if name == name_of(step)}


def newest(directory: Path) -> Saved | None:
    """The newest checkpoint whose manifest can be read."""
    return next(filter(None, (describe(directory / name) for name in reversed(names(directory)))), None)


def describe(path: Path) -> Saved | None:
    """What a checkpoint directory's manifest says; None where it says nothing that can be believed, or is not there.

    Raises OSError where the manifest cannot be read now.
    """
    try:
        manifest = _manifest.read(path)
    except FormatError:
        return None
    if name_of(manifest.step) != path.name:
        return None
    return Saved(manifest.step, path, manifest.metrics, manifest.time, manifest.nbytes)


def of_kind(directory: Path, *prefixes: str) -> list[Path]:
    """The directories whose name begins with SAVING, TRASH, OLD or DAMAGED."""
    found = [directory / name for name in sorted(_names(directory)) if name.startswith(prefixes)]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint's directory, whatever it is called just now."""
    match = STEP.search(name)
    return int(match[1]) if match else None
