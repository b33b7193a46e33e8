"""The pinned steps of a run: an empty file for each, `.pins/step-0000001200`. Their checkpoints are never deleted.

A pin is of a step, not of its content: it stays if the step is saved again. Pinning takes no lock, because another process
may be training: `_changes.pin` writes the file and then looks whether the checkpoint is there, while `_changes.remove`
renames the checkpoint and then looks whether the file is there. Whichever comes first, one of them sees the other.
"""

from __future__ import annotations

import os
from pathlib import Path

from statedict.formats.runs import name_of

from . import _layout

NAME = ".pins"


def pinned(directory: Path) -> set[int]:
    """The pinned steps; not all of them need to have a checkpoint."""
    try:
        names = os.listdir(directory / NAME)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {step for step in map(_layout.step_of, names) if step is not None}


def file_of(directory: Path, step: int) -> Path:
    """The file that pins a step."""
    return directory / NAME / name_of(step)
