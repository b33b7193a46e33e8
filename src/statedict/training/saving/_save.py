"""Write one checkpoint: every file, then the manifest that lists them, then rename the directory.

The content no longer changes with training: it is a copy, or the live state of a synchronous save.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from statedict import _sources, files, formats
from statedict.errors import AfterSaveError, SaveError
from statedict.formats import runs
from statedict.formats.runs import FileFacts, Manifest
from statedict.state import Leaf, tensors_of

from .. import _clock
from .._progress import Meter
from ..run_directory import _changes, _layout, _names
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
    """What other ranks, or this one before, have written into a checkpoint.

    Attributes:
        objects: object name → its file or directory.
        facts: the facts of those files that need not be read again.
        shards: as in the Manifest.
    """

    objects: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, FileFacts] = field(default_factory=dict)
    shards: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write(directory: Path, content: Content, meter: Meter, *, durable: bool) -> None:
    """Write a checkpoint. If anything fails, it is removed, and older checkpoints do not change.

    Raises AfterSaveError if the checkpoint is complete but its directory entry could not be flushed.
    """
    path = _changes.begin(directory, content.step)
    try:
        complete(directory, path, content, Others(), meter, durable=durable)
    except AfterSaveError:
        raise
    except BaseException:
        _changes.abandon(path)
        raise


def complete(
    directory: Path, path: Path, content: Content, others: Others, meter: Meter, *, durable: bool
) -> None:
    """Write the files and the manifest into the directory `path`, and rename it.

    `others` is what is already in it. `meter` counts the bytes written.
    """
    _write_files(path, content, others, donor(directory), meter)
    _changes.finish(directory, path, content.step, durable=durable)


def donor(directory: Path) -> Donor:
    """The newest checkpoint, whose shards can be linked."""
    newest = _layout.newest(directory)
    if newest is None:
        return Donor()
    manifest = runs.read(newest.path)
    digests = {digest: file for of_one in manifest.shards.values() for file, digest in of_one.items()}
    facts = manifest.files
    return Donor(newest.path, {d: (file, facts[file]) for d, file in digests.items() if file in facts})


def nbytes(content: Content) -> int:
    """The approximate size of the tensors in a content, in bytes."""
    return sum(nbytes_of(value) for state in content.states.values() for value in tensors_of(state))


def nbytes_of(value: Any) -> int:
    size: int = value.spec.nbytes if isinstance(value, Leaf) else value.nbytes
    return size


def _write_files(path: Path, content: Content, others: Others, donor: Donor, meter: Meter) -> None:
    # Files are not flushed here: `finish` flushes each of them once.
    objects = dict(others.objects)
    shards = dict(others.shards)
    stems = _names.stems([*objects, *content.states])
    for name, state in content.states.items():
        parts = _frozen.split(state, content.frozen.get(name, frozenset()))
        objects[name] = f"{stems[name]}{'.pt' if parts is None else _frozen.INDEX}"
        with named(name, state):
            if parts is None:
                write_state(state, path / objects[name])
                meter((path / objects[name]).stat().st_size)
            else:
                shards[name] = _frozen.write(path, stems[name], parts, donor, meter)
    manifest = Manifest(
        step=content.step,
        time=_clock.now(),
        metrics=content.metrics,
        values=content.values,
        objects=objects,
        files={file: others.facts.get(file) or FileFacts.of(path / file) for file in sorted(relative(path))},
        versions=_versions(),
        shards=shards,
        keep=content.keep,
    )
    if manifest.without_files():
        lost = ", ".join(map(repr, manifest.without_files()))
        raise SaveError(f"{path}: the files of {lost} were deleted by another program while the checkpoint was written")
    block = memoryview(runs.dump(manifest))
    files.write(path / runs.MANIFEST, [files.Frame(len(block), lambda: block)], durable="none")


def write_state(state: Any, path: Path) -> None:
    """Write a state or tree to a file; NumPy arrays stay NumPy arrays, and tensors stay tensors."""
    substitute = _sources.States().of
    formats.write(state, path, format="torch", metadata=None, max_shard_size=None, durable=False, substitute=substitute)


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


def relative(path: Path) -> list[str]:
    """Every file below a directory except the manifest, as a relative path with `/`; links are not followed."""
    found = []
    for folder, _, names in os.walk(path, onerror=_changes.fail):
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return [name for name in found if name != runs.MANIFEST]


@cache
def _versions() -> dict[str, str]:
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known
