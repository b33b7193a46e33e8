"""The layout of a run's directory: one directory per checkpoint, which is complete or does not exist.

    runs/a/                      the directory given to the manager
      .lock                      locked while a manager writes here; released when its process ends
      step-0000001200/           a checkpoint: plain files and a manifest
        manifest.json  model.pt  optimizer.pt  random.pt
      .saving-step-…-PID-RAND/   a checkpoint being written, or left by a process that died
      .trash-step-…-RAND/        a checkpoint being deleted
      .old-step-…-RAND/          a checkpoint about to be deleted, or replaced on systems that cannot swap two names
      damaged-step-…-RAND/       a checkpoint that failed verification; never resumed from, never deleted
      .pins/step-0000001200      an empty file: the step is pinned (see `_pins.py`)

A checkpoint gets its name by one rename, after all of its content is durable, and loses it by one rename, before any of its
content is deleted. So a directory with a step's name is complete, unless the disk damaged it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from statedict.errors import FormatError
from statedict.formats import runs

from .._keep import Saved

STEP = re.compile(r"step-([0-9]{1,19})")
SAVING, TRASH, OLD, DAMAGED = ".saving-", ".trash-", ".old-", "damaged-"


def steps(directory: Path) -> dict[int, Path]:
    """All directories with a step's name, valid or not, oldest first."""
    return {step: directory / name for step, name in _steps(directory).items()}


def names(directory: Path) -> list[str]:
    """The names of the directories that `steps` returns. (Building 10,000 Path objects would dominate the time.)"""
    return list(_steps(directory).values())


def _steps(directory: Path) -> dict[int, str]:
    try:
        with os.scandir(directory) as entries:
            return runs.own_steps(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return {}


def describe(path: Path) -> Saved | None:
    """The facts in a checkpoint's manifest; None if the manifest is missing, invalid, or of another step.

    Raises OSError if the manifest cannot be read at the moment.
    """
    try:
        manifest = runs.read(path)
        runs.check_step(manifest, str(path))
    except FormatError:
        return None
    return Saved(manifest.step, path, manifest.metrics, manifest.time, manifest.nbytes)


def of_kind(directory: Path, *prefixes: str) -> list[Path]:
    """The directories whose names begin with SAVING, TRASH, OLD or DAMAGED."""
    found = [directory / name for name in sorted(_names(directory)) if name.startswith(prefixes)]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def step_of(name: str) -> int | None:
    """The step in a checkpoint directory's name, with or without one of the prefixes."""
    match = STEP.search(name)
    return int(match[1]) if match else None
