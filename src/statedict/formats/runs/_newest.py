"""Open the newest checkpoint of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from statedict.files import Folder

from ...errors import FormatError, UnknownFormatError
from .._limits import Limits
from .._run_names import LOCK, own_steps
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..folders._roots import opened
from ..many_files._shards import INDEX
from ..many_files._weights import KNOWN, read_weights
from ._manifest import check_step, read_open
from ._step import open_step
from ._steps import FoundSteps, find_steps


def read_run(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the newest checkpoint of a run, which a note names; raise UnknownFormatError if the run has none.

    A folder that also has the weights of a finished model, as transformers' Trainer saves it beside the checkpoints, is
    read as that model.
    """
    own = own_steps(folder.folders)
    if own:
        return _read_own(folder, own, limits)
    if _has_model(folder):
        checkpoint = read_weights(folder, limits)
        checkpoint.notes.append("the model of this directory was read, not its checkpoints")
        return checkpoint
    found = find_steps(folder)
    if found is not None:
        return _read_foreign(found, limits)
    reason = "this run does not have a checkpoint yet" if LOCK in folder.files else "this directory has no checkpoint"
    raise UnknownFormatError(reason, file=folder.path)


def _read_foreign(found: FoundSteps, limits: Limits) -> Checkpoint:
    folder, steps, newest = found
    if isinstance(newest, FormatError):
        raise newest
    try:
        checkpoint = opened(folder, newest, limits)
    except FormatError as error:
        raise _with_older(
            error, folder, newest, [step.name for step in steps if step.name != newest]
        ) from error.__cause__
    checkpoint.notes.append(f"{newest} is {_among(len(steps), folder)}")
    return checkpoint


def _read_own(folder: Folder, own: Mapping[int, str], limits: Limits) -> Checkpoint:
    """Open the newest checkpoint of CheckpointManager with a valid manifest; damaged newer ones are reported."""
    damaged: dict[str, FormatError] = {}
    older = list(own.values())
    while older:
        name = older.pop()
        step = folder.folder(name)
        try:
            manifest = read_open(step)
            check_step(manifest, step.path)
        except FormatError as error:
            damaged[name] = error
            continue
        passed = f"; newer ones are damaged: {', '.join(damaged)}" if damaged else ""
        notes = [f"{name} is {_among(len(own), folder)}{passed}"]
        findings = [Finding("error", each, str(error)) for each, error in damaged.items()]
        try:
            return open_step(step, manifest, limits, notes=notes, findings=findings)
        except FormatError as error:
            raise _with_older(error, folder, name, older) from error.__cause__
    kind = UnknownFormatError if all(isinstance(each, UnknownFormatError) for each in damaged.values()) else FormatError
    raise kind(f"no checkpoint of this run is valid: {'; '.join(map(str, damaged.values()))}", file=folder.path)


def _with_older(error: FormatError, folder: Folder, newest: str, older: Sequence[str]) -> FormatError:
    """Return the error about the newest checkpoint of a run, with the path of the next older one."""
    hints = [error.hint, f"{newest} is the newest checkpoint of {folder.path}"]
    hints += [f"the next older one is {folder.path_of(older[-1])}"] if older else []
    error.hint = "; ".join(filter(None, hints))
    return error


def _among(count: int, folder: Folder) -> str:
    return (
        f"the newest of {count:,} checkpoints in {folder.path}"
        if count > 1
        else f"the only checkpoint in {folder.path}"
    )


def _has_model(folder: Folder) -> bool:
    """Return whether a folder has weights with a name that frameworks give to those of a model."""
    return any(name.removesuffix(INDEX) in KNOWN for name in folder.files)
