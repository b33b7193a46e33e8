"""What training does not change is written once: frozen parameters lie in shards that later checkpoints share.

A module whose frozen parameters are worth it is saved as shards with an index (`model.pt.index.json`, as Hugging Face has
them): frozen tensors apart from the rest. A shard of frozen tensors whose content (a SHA-256 of names, dtypes, shapes and
elements) is that of a shard of the previous checkpoint becomes a hard link to its file. The disk frees a file with its
last link, so deleting one checkpoint breaks no other; a copy of a checkpoint is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from statedict import _api, files
from statedict.state import Leaf, StateDict, raw_values

from ._manifest import FileFacts
from ._progress import Meter

# Fewer bytes than this are written again sooner than they are digested and linked.
WORTH_SHARING = 1 << 20
LARGEST = 256 << 20
INDEX = ".pt.index.json"


@dataclass(frozen=True, slots=True)
class Donor:
    """The previous checkpoint: its directory, and by the digest of its content the file of each shard, as it was written."""

    path: Path | None = None
    shards: Mapping[str, tuple[str, FileFacts]] = field(default_factory=dict)


def frozen_names(module: Any, state: Any) -> frozenset[str]:
    """The parameters of a module that need no gradient: training leaves them as they are. `state` is what was read of it."""
    named = getattr(module, "named_parameters", None)
    if not callable(named):
        return frozenset()
    if _all_train(state):
        return frozenset()
    return frozenset(name for name, parameter in named(remove_duplicate=False) if not parameter.requires_grad)


def _all_train(state: Any) -> bool:
    """Whether a state has the parameters themselves, and nothing else: 0.1 µs a tensor; asking the module takes 0.5."""
    values = raw_values(state).values() if isinstance(state, StateDict) else ()
    try:
        return bool(values) and all(map(attrgetter("requires_grad"), values))
    except AttributeError:
        return False


def split(state: Any, frozen: Iterable[str]) -> tuple[list[StateDict], StateDict] | None:
    """A state's frozen tensors, in shards, and the rest; None where there is too little of them to share.

    Sparse, quantised and nested tensors are of the rest, and so are those that are tied to a tensor of the rest.
    """
    if not isinstance(state, StateDict):
        return None
    among = set(frozen)
    sizes = {name: leaf.spec.nbytes for name, leaf in state.leaves() if name in among and isinstance(leaf, Leaf)}
    tied = state.tied if sizes else []
    for group in tied:
        if not sizes.keys() >= set(group):
            for name in group:
                sizes.pop(name, None)
    if sum(sizes.values()) < WORTH_SHARING:
        return None
    return [state.only(shard) for shard in _shards(sizes, tied)], state.only(state.keys() - sizes.keys())


def write(
    path: Path, name: str, parts: tuple[list[StateDict], StateDict], donor: Donor, meter: Meter
) -> dict[str, str]:
    """Write the shards of an object and their index into a checkpoint's directory; the digests of the shared ones."""
    shared, rest = parts
    total = len(shared) + 1
    places: dict[str, str] = {}
    digests: dict[str, str] = {}
    for number, shard in enumerate([*shared, rest], start=1):
        file = f"{name}-{number:05d}-of-{total:05d}.pt"
        if number == total:
            _api.save(shard, path / file, durable=False)
        else:
            digests[file] = shard.fingerprint()
            _link_or_save(donor, digests[file], shard, path / file)
        places.update(dict.fromkeys(shard, file))
        meter((path / file).stat().st_size)
    index = {"metadata": {"total_size": sum(part.nbytes for part in (*shared, rest))}, "weight_map": places}
    text = json.dumps(index, indent=1).encode() + b"\n"
    files.write(path / f"{name}{INDEX}", [files.Frame(len(text), lambda: text)], durable="none")
    return digests


def _link_or_save(donor: Donor, digest: str, shard: StateDict, target: Path) -> None:
    if not _linked(donor, digest, target):
        _api.save(shard, target, durable=False)


def _linked(donor: Donor, digest: str, target: Path) -> bool:
    """Whether the donor had this shard, and still has what was written: damage is not passed on."""
    if donor.path is None or digest not in donor.shards:
        return False
    file, facts = donor.shards[digest]
    try:
        os.link(donor.path / file, target)
    except OSError:
        # Some file systems have no hard links, and the previous checkpoint may be gone: then the shard is written.
        return False
    if FileFacts.of(target) == facts:
        return True
    target.unlink()
    return False


def _shards(sizes: Mapping[str, int], tied: Iterable[tuple[str, ...]]) -> list[set[str]]:
    """The names of `sizes` (in bytes) in runs of at most LARGEST bytes, tied ones together."""
    together = {name: group for group in tied for name in group}
    shards: list[set[str]] = [set()]
    filled = 0
    seen: set[str] = set()
    for name in sizes:
        if name in seen:
            continue
        group = together.get(name, (name,))
        seen.update(group)
        nbytes = max(sizes[one] for one in group)
        if shards[-1] and filled + nbytes > LARGEST:
            shards.append(set())
            filled = 0
        shards[-1].update(group)
        filled += nbytes
    return shards
