"""Folders with a checkpoint for each step: find the steps, and open the newest one."""

from __future__ import annotations

from typing import NamedTuple

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from .._table import MARKERS, STEP
from ..checkpoint._checkpoint import Checkpoint
from ._roots import opened

# In bytes. A marker has the name of a folder, or a number.
LONGEST_MARKER = 4096


class RunStep(NamedTuple):
    """One checkpoint of a run: its number, and the name of its file or folder."""

    number: int
    name: str


def steps(folder: Folder) -> list[RunStep]:
    """Return the checkpoints in a folder, oldest first."""
    found = [(STEP.fullmatch(name), name) for name in (*folder.folders, *folder.files)]
    return sorted(RunStep(int(match["number"] or match["last"]), name) for match, name in found if match)


def newest(folder: Folder) -> RunStep | None:
    """Return the newest checkpoint: the one that a marker (`latest` …) names, or else that of the highest step."""
    listed = steps(folder)
    marked = _marked(folder)
    return next((step for step in listed if marked in (step.name, str(step.number))), listed[-1] if listed else None)


def read_newest(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the newest checkpoint of a run."""
    step = newest(folder)
    if step is None:
        raise FormatError("no checkpoint of this run was found", file=folder.path)
    checkpoint = opened(folder, step.name, limits)
    checkpoint.notes.append(f"{step.name} is the newest of {len(steps(folder)):,} checkpoints in {folder.path}")
    return checkpoint


def _marked(folder: Folder) -> str | None:
    for name in MARKERS:
        if name in folder.files:
            file = folder.file(name)
            return file.read(0, min(file.size, LONGEST_MARKER)).decode(errors="replace").strip()
    return None
