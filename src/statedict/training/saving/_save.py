"""Write one checkpoint: every file, then the manifest that lists them, which completes it.

The content no longer changes with training: it is a copy, or the live state of a synchronous save.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from statedict import _sources, formats
from statedict.errors import AfterSaveError, FormatError, SaveError
from statedict.formats.runs import FileFacts, Manifest
from statedict.state import collector_paused, tensors_of

from .. import _clock, _names
from .._progress import Meter
from .._run import Draft, TrainingRun
from . import _frozen
from ._frozen import Donor

PACKAGES = ("statedict", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Content:
    """The content of one checkpoint.

    Attributes:
        step, metrics, values: as in the Manifest.
        states: object name → its state (a StateDict or any tree).
        keep: the run's retention policy, or None, as in the Manifest.
        frozen: object name → the names in its state that training does not change.
    """

    step: int
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    states: Mapping[str, Any]
    keep: list[Any] | None = None
    frozen: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Others:
    """The parts of a checkpoint that all ranks have already written.

    Attributes:
        objects: object name → its file or directory.
        uploaded: the facts that the draft of each rank has of its files.
        shards: as in the Manifest.
    """

    objects: Mapping[str, str] = field(default_factory=dict)
    uploaded: Sequence[Mapping[str, FileFacts]] = ()
    shards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write(run: TrainingRun, content: Content, meter: Meter, *, durable: bool) -> None:
    """Write a checkpoint. If anything fails, it is removed, and older checkpoints do not change.

    Raises AfterSaveError if the checkpoint is complete but its directory entry could not be flushed.
    """
    draft = run.begin(content.step, durable=durable)
    try:
        complete(run, draft, content, Others(), meter)
    except AfterSaveError:
        raise
    except BaseException:
        draft.abandon()
        raise


def complete(run: TrainingRun, draft: Draft, content: Content, others: Others, meter: Meter) -> None:
    """Write the files and the manifest into the draft, and finish it. `meter` counts the bytes written."""
    donor = donor_of(run) if any(content.frozen.values()) else Donor()
    draft.finish(_write_files(draft, content, others, donor, meter))


def donor_of(run: TrainingRun) -> Donor:
    """The newest checkpoint, whose shards can be shared."""
    for place in reversed(run.steps().values()):
        try:
            manifest = run.manifest(place)
        except FormatError:
            continue
        digests = {digest: file for of_one in manifest.shards.values() for file, digest in of_one.items()}
        facts = manifest.files
        found = {d: (file, facts[file]) for d, file in digests.items() if file in facts}
        return Donor(place, found)
    return Donor()


def nbytes(content: Content) -> int:
    """The approximate size of the tensors in a content, in bytes."""
    return sum(value.nbytes for state in content.states.values() for value in tensors_of(state))


def _write_files(draft: Draft, content: Content, others: Others, donor: Donor, meter: Meter) -> Manifest:
    objects = dict(others.objects)
    shards = dict(others.shards)
    stems = _names.stems([*objects, *content.states])
    for name, state in content.states.items():
        parts = _frozen.split(state, content.frozen.get(name, frozenset()))
        objects[name] = f"{stems[name]}{'.pt' if parts is None else _frozen.INDEX}"
        with named(name, state):
            if parts is None:
                write_state(state, draft, objects[name])
                meter(draft.uploaded[objects[name]].nbytes)
            else:
                shards[name] = _frozen.write(draft, stems[name], parts, donor, meter)
    uploaded = [draft.uploaded, *others.uploaded]
    found = draft.files(uploaded)
    if lost := set().union(*uploaded) - found.keys():
        raise SaveError(
            f"{draft.place}: {', '.join(map(repr, sorted(lost)))} {'were' if len(lost) > 1 else 'was'} deleted by another "
            "program while the checkpoint was written"
        )
    return Manifest(
        step=content.step,
        time=_clock.now(),
        metrics=content.metrics,
        values=content.values,
        objects=objects,
        files=found,
        versions=_versions(),
        shards=shards,
        keep=content.keep,
    )


def write_state(state: Any, draft: Draft, name: str) -> None:
    """Write a state or tree to a file; NumPy arrays stay NumPy arrays, and tensors stay tensors."""
    with collector_paused():
        draft.write(name, formats.parts(state, substitute=_sources.States().of))


@contextmanager
def named(name: str, state: Any) -> Iterator[None]:
    """Add the object's name, and the position of the value in it, to an error about its state."""
    what = "the values" if name == _names.VALUES else repr(name)
    try:
        yield
    except SaveError as error:
        raise SaveError(f"{what}: {error}") from error
    except TypeError as error:
        # Raised when a value cannot be copied, so it cannot be saved either; the SaveError names its path.
        raise SaveError(f"{what}: {_sources.unloadable(state) or error}") from error


@cache
def _versions() -> dict[str, str]:
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known
