"""One checkpoint is written: every file, then the manifest that vouches for them, then the name.

What goes in is already independent of training (snapshots, or the live state of a save that is waited for).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from statedict import _sources, files, formats
from statedict.errors import AfterSaveError, SaveError
from statedict.state import Leaf, tensors_of

from . import _directory, _layout, _manifest, _names, _shared
from ._manifest import FileFacts, Manifest
from ._progress import Meter
from ._shared import Donor

PACKAGES = ("statedict", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Content:
    """What one checkpoint is to hold.

    Attributes:
        step, metrics, values: as in the Manifest.
        states: object name → the state (a StateDict or any tree).
        keep: the run's rules of retention, or None: as in the Manifest.
        frozen: of a module's state, the names that training does not change.
    """

    step: int
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    states: Mapping[str, Any]
    keep: list[Any] | None = None
    frozen: Mapping[str, frozenset[str]] = field(default_factory=dict)


def write(directory: Path, content: Content, meter: Meter, *, durable: bool) -> None:
    """Write the checkpoint and give it its name; whatever fails, nothing of it is left and nothing older changes.

    Raises AfterSaveError where it has its name, but that could not be flushed.
    """
    path = _directory.begin(directory, content.step)
    try:
        complete(directory, path, content, {}, meter, durable=durable)
    except AfterSaveError:
        raise
    except BaseException:
        _directory.abandon(path)
        raise


def complete(
    directory: Path, path: Path, content: Content, others: Mapping[str, str], meter: Meter, *, durable: bool
) -> None:
    """Write the files and the manifest into a checkpoint that was begun, and give it its name.

    `others` are objects that lie in it already: name → file or directory. `meter` counts what is written.
    """
    _write_files(path, content, others, _donor(directory), meter)
    _directory.finish(directory, path, content.step, durable=durable)


def _donor(directory: Path) -> Donor:
    """The newest checkpoint there is, for its shards."""
    newest = _layout.newest(directory)
    if newest is None:
        return Donor()
    manifest = _manifest.read(newest.path)
    digests = {digest: file for of_one in manifest.shards.values() for file, digest in of_one.items()}
    facts = manifest.files
    return Donor(newest.path, {d: (file, facts[file]) for d, file in digests.items() if file in facts})


def nbytes(content: Content) -> int:
    """What the tensors of a content take, about."""
    return sum(nbytes_of(value) for state in content.states.values() for value in tensors_of(state))


def nbytes_of(value: Any) -> int:
    size: int = value.spec.nbytes if isinstance(value, Leaf) else value.nbytes
    return size


def _write_files(path: Path, content: Content, others: Mapping[str, str], donor: Donor, meter: Meter) -> None:
    # No file is flushed here: `finish` flushes them all at once, which is half as many flushes.
    objects = dict(others)
    shards = {}
    stems = _names.stems([*others, *content.states])
    for name, state in content.states.items():
        parts = _shared.split(state, content.frozen.get(name, ()))
        objects[name] = f"{stems[name]}{'.pt' if parts is None else _shared.INDEX}"
        with named(name, state):
            if parts is None:
                write_state(state, path / objects[name])
                meter((path / objects[name]).stat().st_size)
            else:
                shards[name] = _shared.write(path, stems[name], parts, donor, meter)
    manifest = Manifest(
        step=content.step,
        time=datetime.now(UTC),
        metrics=content.metrics,
        values=content.values,
        objects=objects,
        files={file: FileFacts.of(path / file) for file in sorted(relative(path))},
        versions=_versions(),
        shards=shards,
        keep=content.keep,
    )
    if manifest.without_files():
        lost = ", ".join(map(repr, manifest.without_files()))
        raise SaveError(f"{path}: the files of {lost} are not there any more: something deletes what is being saved")
    block = memoryview(_manifest.dump(manifest))
    files.write(path / _manifest.NAME, [files.Frame(len(block), lambda: block)], durable="none")


def write_state(state: Any, path: Path) -> None:
    """Write a state or a tree to a file, where NumPy arrays stay NumPy arrays and tensors tensors."""
    substitute = _sources.States().of
    formats.write(state, path, format="torch", metadata=None, max_shard_size=None, durable=False, substitute=substitute)


@contextmanager
def named(name: str, state: Any) -> Iterator[None]:
    """The border where an error about a state gets the name of its object, and a place in it."""
    what = "the values" if name == _names.VALUES else repr(name)
    try:
        yield
    except SaveError as error:
        raise SaveError(f"{what}: {error}") from error
    except TypeError as error:
        # Of copying a value that cannot be copied: it cannot be saved either, and that is told with its path.
        raise SaveError(f"{what}: {_sources.unloadable(state) or error}") from error


def relative(path: Path) -> list[str]:
    """Every file below a directory, by its path from there, with `/`; links are not followed."""
    found = []
    for folder, _, names in os.walk(path, onerror=_directory.fail):
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return [name for name in found if name != _manifest.NAME]


@cache
def _versions() -> dict[str, str]:
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known
