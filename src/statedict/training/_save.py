"""One checkpoint is written: every file, then the manifest that vouches for them, then the name.

What goes in is already independent of training (snapshots, or the live state of a save that is waited for).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from statedict import _api, files

from . import _directory, _layout, _manifest, _shared
from ._manifest import FileFacts, Manifest
from ._shared import Donor

PACKAGES = ("statedict", "torch", "numpy")


@dataclass(frozen=True, slots=True)
class Content:
    """What one checkpoint is to hold.

    Attributes:
        step, metrics, values: as in the Manifest.
        states: file name without its suffix → the state (a StateDict or any tree) to write there.
        frozen: of a module's state, the names that training does not change.
    """

    step: int
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    states: Mapping[str, Any]
    frozen: Mapping[str, frozenset[str]] = field(default_factory=dict)


def write(directory: Path, content: Content, *, durable: bool) -> None:
    """Write the checkpoint and give it its name; whatever fails, nothing of it is left and nothing older changes."""
    path = _directory.begin(directory, content.step)
    try:
        complete(directory, path, content, {}, durable=durable)
    except BaseException:
        _directory.abandon(path)
        raise


def complete(directory: Path, path: Path, content: Content, others: Mapping[str, str], *, durable: bool) -> None:
    """Write the files and the manifest into a checkpoint that was begun, and give it its name.

    `others` are objects that lie in it already: name → file or directory.
    """
    _write_files(path, content, others, _donor(directory), durable=durable)
    _directory.finish(directory, path, content.step)


def _donor(directory: Path) -> Donor:
    """The newest checkpoint there is, for its shards."""
    saved = _layout.saved(directory)
    if not saved:
        return Donor()
    shards = _manifest.read(saved[-1].path).shards.values()
    return Donor(saved[-1].path, {digest: file for of_one in shards for file, digest in of_one.items()})


def _write_files(path: Path, content: Content, others: Mapping[str, str], donor: Donor, *, durable: bool) -> None:
    objects = dict(others)
    shards = {}
    for name, state in content.states.items():
        parts = _shared.split(state, content.frozen.get(name, ()))
        if parts is None:
            objects[name] = f"{name}.pt"
            _api.save(state, path / objects[name], durable=durable)
        else:
            objects[name] = f"{name}{_shared.INDEX}"
            shards[name] = _shared.write(path, name, parts, donor)
    manifest = Manifest(
        step=content.step,
        time=datetime.now(UTC),
        metrics=content.metrics,
        values=content.values,
        objects=objects,
        files={file: facts(path / file) for file in sorted(relative(path))},
        versions=_versions(),
        shards=shards,
    )
    block = memoryview(_manifest.dump(manifest))
    files.write(
        path / _manifest.NAME, [files.Frame(len(block), lambda: block)], durable="rename" if durable else "none"
    )


def facts(path: Path) -> FileFacts:
    """Size and CRC-32 of a file as it lies on disk."""
    file = files.open(path)
    try:
        return FileFacts(file.size, files.checksums(file, [(0, file.size)])[0])
    finally:
        file.close()


def relative(path: Path) -> list[str]:
    """Every file below a directory, by its path from there, with `/`; links are not followed."""
    found = []
    for folder, _, names in os.walk(path):
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return [name for name in found if name != _manifest.NAME]


def _versions() -> dict[str, str]:
    known = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            continue
    return known
