"""Open one checkpoint of CheckpointManager: a folder whose manifest says which file has which object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from .._run_names import MANIFEST, VALUES
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..folders._opened import opened
from ..folders._roots import read_roots
from ._json_values import to_json
from ._manifest import Manifest, check_file, check_step, missing_file, read_open

# Steps of an object's name: `optimizers/0` has two.
DEEPEST = 20
# The state of a rank's random generators, if several processes saved the checkpoint.
RANDOM_OF_RANK = re.compile(r"random-([0-9]{5,9})\.pt")


def read_step(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the checkpoint in a folder with a manifest; raise FormatError if the manifest is missing or damaged."""
    return open_step(folder, read_open(folder), limits)


def open_step(
    folder: Folder,
    manifest: Manifest,
    limits: Limits,
    *,
    notes: Sequence[str] = (),
    findings: Sequence[Finding] = (),
) -> Checkpoint:
    """Open the checkpoint that a manifest describes: each object is a root, and the plain values are beside them.

    A file that is missing or damaged is reported by `verify` and by an error about its root; the others load. `findings`
    are reported by `verify`, too.
    """
    _check_objects(manifest.objects, folder.path_of(MANIFEST))
    # The entries of `values.pt` are plain values, like those in the manifest.
    members = {"" if name == VALUES else name: file for name, file in manifest.objects.items()}
    ranks = map(RANDOM_OF_RANK.fullmatch, manifest.files)
    members |= {f"random/{int(match[1])}": match[0] for match in ranks if match}
    checkpoint = read_roots(
        folder,
        "step",
        {root: partial(_object, folder, name, limits) for root, name in members.items()},
        limits,
        values=manifest.values,
        notes=notes,
        producer=f"statedict {manifest.versions.get('statedict', '')}".strip(),
        metadata=_metadata(manifest),
        checks=partial(_check, folder, manifest, findings),
    )
    checkpoint.size += folder.size(MANIFEST)
    if "" in checkpoint.unopened:
        checkpoint.unopened[VALUES] = checkpoint.unopened.pop("")
    return checkpoint


def _object(folder: Folder, name: str, limits: Limits) -> Checkpoint:
    try:
        return opened(folder, name, limits)
    except FileNotFoundError as error:
        raise missing_file(folder.path_of(name)) from error


def _metadata(manifest: Manifest) -> dict[str, str]:
    metrics = {name: to_json(value) for name, value in manifest.metrics.items()}
    texts = {"step": str(manifest.step), "time": manifest.time.isoformat(), "metrics": json.dumps(metrics)}
    return {f"statedict.{name}": text for name, text in texts.items() if metrics or name != "metrics"}


def _check(folder: Folder, manifest: Manifest, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the problems of all files: each must exist, with the size and CRC-32 in the manifest."""
    yield from findings
    try:
        check_step(manifest, folder.path)
    except FormatError as error:
        yield Finding("error", MANIFEST, error.reason)
    for name, expected in manifest.files.items():
        try:
            check_file(folder, name, expected)
        except FormatError as error:
            yield Finding("error", name, error.reason)
        except OSError as error:
            yield Finding.of(name, error)


def _check_objects(objects: Mapping[str, str], file: str) -> None:
    """Raise FormatError unless the names of the objects can be joined to one tree, and each has a file of its own."""
    owners: dict[str, str] = {}
    for name, place in objects.items():
        steps = name.split("/")
        above = {"/".join(steps[:count]) for count in range(1, min(len(steps), DEEPEST))}
        if len(steps) > DEEPEST or "" in steps or not above.isdisjoint(objects):
            raise FormatError(f"{name[:100]!r} cannot be the name of an object beside the others", file=file)
        if owners.setdefault(place, name) != name:
            raise FormatError(f"the objects {owners[place]!r} and {name!r} have the same file {place!r}", file=file)
