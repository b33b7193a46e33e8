"""List the checkpoints of another framework's run, with what is known about them without opening them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from statedict.files import Folder

from .._json import parse_json
from .._run_names import own_steps
from ._steps import FoundSteps, NamedStep, find_steps

# The history of transformers' Trainer. A larger file is not read.
HISTORY, LARGEST = "trainer_state.json", 16 << 20
EVALUATION = re.compile(r"eval_(?!.*(?:runtime|per_second|compilation_time)\Z).+")
# Values in the names of Lightning's files: `epoch=02-val_loss=0.31.ckpt`.
VALUE = re.compile(r"(?P<name>[^=-]+)=(?P<value>-?[0-9]+(?:\.[0-9]+)?)(?:-|\Z)")


class RunStep(NamedTuple):
    """One checkpoint of another framework's run.

    Attributes:
        number: the step (or epoch) in its name; None if there is none.
        path: its folder or file.
        is_newest: whether it is the newest, by the rule of its framework.
        time: when its folder or file was last changed (UTC).
        nbytes: total size of its files.
        metrics: those in its name (Lightning), or of the last evaluation (transformers' Trainer).
    """

    number: int | None
    path: str
    is_newest: bool
    time: datetime
    nbytes: int
    metrics: Mapping[str, Any]


def steps(directory: str | os.PathLike[str]) -> list[RunStep]:
    """Return the checkpoints of a run of another framework, oldest first; an empty list if there are none.

    Those of CheckpointManager are listed by itself.

    >>> import tempfile, numpy as np, statedict
    >>> from pathlib import Path
    >>> output = Path(tempfile.mkdtemp())
    >>> for step in (9, 10):
    ...     (output / f"checkpoint-{step}").mkdir()
    ...     statedict.save({"weight": np.ones(2)}, output / f"checkpoint-{step}" / "model.safetensors")
    >>> [(step.number, step.is_newest) for step in steps(output)]
    [(9, False), (10, True)]
    """
    run = Folder(os.path.abspath(directory))
    try:
        found = None if own_steps(run.folders) else find_steps(run)
        return [_described(step, found) for step in found.steps] if found else []
    finally:
        run.close()


def _described(step: NamedStep, found: FoundSteps) -> RunStep:
    path = found.folder.path_of(step.name)
    time = datetime.fromtimestamp(os.stat(path).st_mtime, UTC)
    metrics = {**_in_name(step.name), **_in_history(path)}
    return RunStep(step.number, path, step.name == found.newest, time, _nbytes(path), metrics)


def _nbytes(path: str) -> int:
    if not os.path.isdir(path):
        return os.stat(path).st_size
    inside = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sum(os.stat(file).st_size for file in inside if os.path.isfile(file))


def _in_name(name: str) -> dict[str, Any]:
    values = {match["name"]: match["value"] for match in VALUE.finditer(os.path.splitext(name)[0])}
    return {name: float(value) if "." in value else int(value) for name, value in values.items() if name != "step"}


def _in_history(path: str) -> dict[str, Any]:
    """Return the metrics of the last evaluation in the history of transformers' Trainer; empty if it cannot be read."""
    history: list[dict[str, Any]] = []
    file = os.path.join(path, HISTORY)
    with suppress(OSError, ValueError, RecursionError, AttributeError, TypeError):
        if os.stat(file).st_size <= LARGEST:
            with open(file, "rb") as stream:
                found = parse_json(stream.read()).get("log_history") or ()
            history = [entry for entry in found if isinstance(entry, dict)]
    evaluated = [entry for entry in history if any(map(EVALUATION.fullmatch, entry))]
    last = [entry for entry in evaluated if entry.get("step") == evaluated[-1].get("step")]
    values = {name: value for entry in last for name, value in entry.items() if EVALUATION.fullmatch(name)}
    return {name: value for name, value in values.items() if isinstance(value, (int, float))}
