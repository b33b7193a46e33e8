"""Open the newest checkpoint of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from statedict.files import Folder, is_url

from ...errors import FormatError, UnknownFormatError
from .._folder_table import is_weights
from .._limits import Limits
from .._run_names import INDEX, LOCK, is_step_file, own_steps
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..folders._opened import opened
from ..many_files._weights import read_weights, unclear
from ._index import RunIndex, read_index
from ._manifest import check_step, read_open
from ._step import open_step
from ._steps import FoundSteps, find_steps


def read_run(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the newest checkpoint of a run, which a note names; raise UnknownFormatError if the run has none.

    If the folder also contains weights of its own, these are opened instead: transformers' Trainer saves the finished model
    beside the checkpoints.
    """
    own = own_steps(folder.folders)
    if is_url(folder.path) and (own or INDEX in folder.files):
        # Also if a list that is out of date does not show it. A run that was copied here has no index.
        with suppress(FileNotFoundError):
            return _read_stored(folder, read_index(folder), limits)
    if own:
        return _read_own(folder, own, limits)[0]
    found = find_steps(folder)
    notes = unclear(folder) if _has_weights(folder) else []
    if found is not None and (notes or not _has_weights(folder)):
        checkpoint = _read_foreign(found, limits)
        checkpoint.notes += notes
        return checkpoint
    if LOCK in folder.files and not is_weights(folder):
        raise _empty(folder)
    checkpoint = read_weights(folder, limits)
    if found is not None and found.steps:
        newest = "" if isinstance(found.newest, FormatError) else f", of which {found.newest} is the newest"
        checkpoint.notes.append(f"the weights of this directory were read, not those of its checkpoints{newest}")
    return checkpoint


def _read_stored(folder: Folder, index: RunIndex, limits: Limits) -> Checkpoint:
    """Open the newest checkpoint of a run in an object store; again if a manager has deleted it meanwhile."""
    while index.folders:
        before, failure = index, None
        try:
            checkpoint, is_newest = _read_own(folder, index.folders, limits)
            if is_newest:
                return checkpoint
        except (FormatError, FileNotFoundError) as error:
            failure = error
        index = read_index(folder)
        if index.folders == before.folders:
            if failure is not None:
                raise failure
            return checkpoint
    raise _empty(folder)


def _empty(folder: Folder) -> UnknownFormatError:
    return UnknownFormatError("this run does not have a checkpoint yet", file=folder.path)


def _read_foreign(found: FoundSteps, limits: Limits) -> Checkpoint:
    folder, steps, newest = found
    if isinstance(newest, FormatError):
        raise newest
    older = [step.name for step in steps if step.name != newest]
    try:
        checkpoint = opened(folder, newest, limits)
    except FormatError as error:
        raise _with_older(error, folder, newest, older) from error.__cause__
    checkpoint.notes.append(f"{newest} is {_among(len(steps), folder)}")
    return checkpoint


def _read_own(folder: Folder, own: Mapping[int, str], limits: Limits) -> tuple[Checkpoint, bool]:
    """Open the newest checkpoint of CheckpointManager with a valid manifest; return also whether it is the newest of all.

    Newer ones that are damaged are reported by `verify` and in a note.
    """
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
            return open_step(step, manifest, limits, notes=notes, findings=findings), not damaged
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
    which = f"the newest of {count:,} checkpoints" if count > 1 else "the only checkpoint"
    return f"{which} in {folder.path}"


def _has_weights(folder: Folder) -> bool:
    """Return whether a folder has weights that are not a step of the run."""
    return is_weights(folder) and not any(map(is_step_file, folder.files))
