"""Find the checkpoints of a run by their names: every framework has its own.

| framework | its folder of checkpoints | the newest |
|---|---|---|
| transformers' Trainer | `checkpoint-500/` | the highest number |
| accelerate | `checkpoints/checkpoint_0/` | the highest number |
| torchtitan | `checkpoint/step-10/` | the highest number |
| torchtune | `epoch_0/` | the highest number |
| DeepSpeed | `global_step10/`, or any other tag | the tag in `latest` |
| Megatron | `iter_0000010/`, `release/` | the one in `latest_checkpointed_iteration.txt` |
| Lightning | `lightning_logs/version_0/checkpoints/epoch=1-step=20.ckpt` | `last.ckpt`, or the highest step |

Nothing else is searched. The checkpoints of CheckpointManager are found by `_run_names.own_steps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from statedict.files import Folder, is_plain_name

from ...errors import FormatError
from .._run_names import BETWEEN, LAST, LATEST_ITERATION, LIGHTNING, LOGS, MARKERS, OWN, STEP, VERSION
from ..folders._values import read_name

# In the names of Lightning's files.
STEP_VALUE, EPOCH_VALUE = re.compile(r"step=([0-9]+)"), re.compile(r"epoch=([0-9]+)")


class NamedStep(NamedTuple):
    """A checkpoint of a run, by its name: the step (or epoch) in the name, or None; the version of a repeated name."""

    number: int | None
    version: int
    name: str


class FoundSteps(NamedTuple):
    """The checkpoints of a run.

    Attributes:
        folder: the folder in which they are.
        steps: all of them, oldest first.
        newest: the name of the newest; if a marker names one that is missing, the error about that.
    """

    folder: Folder
    steps: list[NamedStep]
    newest: str | FormatError


def find_steps(run: Folder) -> FoundSteps | None:
    """Return the checkpoints of a run; None if it has none."""
    for folder in _places(run):
        listed = _listed(folder)
        newest = _marked(folder, listed)
        if newest is None and listed:
            newest = listed[-1].name
        if newest is not None:
            # A tag of DeepSpeed may be any name.
            known = isinstance(newest, FormatError) or any(step.name == newest for step in listed)
            return FoundSteps(folder, listed if known else [*listed, NamedStep(None, 0, str(newest))], newest)
    return None


def _places(run: Folder) -> Iterator[Folder]:
    """Yield the folders that may contain the checkpoints of a run: itself, and those of the known layouts."""
    yield run
    yield from (run.folder(name) for name in BETWEEN if name in run.folders)
    for logs in (run, run.folder(LOGS)) if LOGS in run.folders else (run,):
        versions = sorted((int(match[1]), match[0]) for match in map(VERSION.fullmatch, logs.folders) if match)
        for _, name in reversed(versions):
            version = logs.folder(name)
            if BETWEEN[0] in version.folders:
                yield version.folder(BETWEEN[0])


def _listed(folder: Folder) -> list[NamedStep]:
    names = [name for name in folder.folders if not OWN.fullmatch(name)]
    found = [NamedStep(int(match["number"]), 0, match[0]) for match in map(STEP.fullmatch, names) if match]
    for name in (*folder.files, *folder.folders):
        match = LAST.fullmatch(name) or LIGHTNING.fullmatch(name)
        if match:
            value = STEP_VALUE.search(name) or EPOCH_VALUE.search(name)
            found.append(NamedStep(int(value[1]) if value else None, int(match["version"] or 0), name))
    return sorted(found, key=lambda step: (step.number is None, step.number or 0, step.version, step.name))


def _marked(folder: Folder, listed: list[NamedStep]) -> str | FormatError | None:
    """Return the checkpoint that a marker names, or the error if it is missing; None without a marker.

    DeepSpeed and Megatron fail if it is missing, and so does opening the run: another checkpoint may be much older.
    """
    marker = next((name for name in MARKERS if name in folder.files), None)
    if marker is None:
        return None
    name = read_name(folder, marker)
    if marker == LATEST_ITERATION and re.fullmatch(r"[0-9]{1,19}", name):
        name = next((step.name for step in listed if step.number == int(name)), f"iter_{int(name):07d}")
    if is_plain_name(name) and name in folder.folders:
        return name
    return FormatError(
        f"it names the checkpoint {name[:100]!r}, which is missing",
        file=folder.path_of(marker),
        hint=f"the newest one here is {folder.path_of(listed[-1].name)}: open it" if listed else None,
    )
