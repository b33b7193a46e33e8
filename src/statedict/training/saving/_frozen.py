"""Write frozen parameters once: they are saved in shards, and later checkpoints link to the same files.

A module with enough frozen parameters is saved as shards with an index (`model.pt.index.json`, as Hugging Face does), with
the frozen tensors apart from the rest. If the content of a frozen shard (a SHA-256 of names, dtypes, shapes and elements)
equals that of a shard of the previous checkpoint, it becomes a hard link to that file (in an object store: a copy, made by
the store). The file system frees a file with its last link, so deleting one checkpoint does not affect another, and a copy
of a checkpoint is complete.

If several ranks save, each of them has a file for its part of the frozen tensors, which is shared in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from statedict import files, formats
from statedict.formats.runs import FileFacts
from statedict.state import Leaf, StateDict, collector_paused, raw_values

from .._keep import Place
from .._progress import Meter
from .._run import Draft

if TYPE_CHECKING:
    from statedict.torch import RankFile

# Bytes. Writing less than this again is faster than hashing and linking it.
WORTH_SHARING = 1 << 20
LARGEST = 256 << 20
INDEX = ".pt.index.json"


@dataclass(frozen=True, slots=True)
class Donor:
    """The previous checkpoint: where its files are, and its shards (digest of the content → file and facts)."""

    place: Place | None = None
    shards: Mapping[str, tuple[str, FileFacts]] = field(default_factory=dict)


def frozen_names(module: Any, state: Any) -> frozenset[str]:
    """The names of a module's parameters that do not require gradients. `state` is the state that was read from it."""
    named = getattr(module, "named_parameters", None)
    if not callable(named) or _all_train(state):
        return frozenset()
    return frozenset(name for name, parameter in named(remove_duplicate=False) if not parameter.requires_grad)


def _all_train(state: Any) -> bool:
    """Whether a state consists of parameters that all require gradients; faster than asking the module."""
    values = raw_values(state).values() if isinstance(state, StateDict) else ()
    try:
        return bool(values) and all(map(attrgetter("requires_grad"), values))
    except AttributeError:
        return False


def split(state: Any, frozen: Collection[str]) -> tuple[list[StateDict], StateDict] | None:
    """Split a state into its frozen tensors, as shards, and the rest; None if the frozen part is too small.

    Sparse, quantised and nested tensors belong to the rest, and so do tensors that are tied to a tensor of the rest.
    """
    if not frozen or not isinstance(state, StateDict):
        return None
    sizes = {name: leaf.spec.nbytes for name, leaf in state.leaves() if name in frozen and isinstance(leaf, Leaf)}
    tied = state.tied if sizes else []
    for group in tied:
        if not sizes.keys() >= set(group):
            for name in group:
                sizes.pop(name, None)
    if sum(sizes.values()) < WORTH_SHARING:
        return None
    return [state.only(shard) for shard in _shards(sizes, tied)], state.only(state.keys() - sizes.keys())


def write(
    draft: Draft, name: str, parts: tuple[list[StateDict], StateDict], donor: Donor, meter: Meter
) -> dict[str, str]:
    """Write an object's shards and their index into a checkpoint; return the digests of the frozen shards."""
    shared, rest = parts
    total = len(shared) + 1
    places: dict[str, str] = {}
    digests: dict[str, str] = {}
    for number, shard in enumerate([*shared, rest], start=1):
        file = f"{name}-{number:05d}-of-{total:05d}.pt"
        if number == total:
            _save(shard, draft, file)
        else:
            digests[file] = shard.fingerprint()
            if not share(donor, digests[file], draft, file):
                _save(shard, draft, file)
        places.update(dict.fromkeys(shard, file))
        meter(draft.uploaded[file].nbytes)
    index = {"metadata": {"total_size": sum(part.nbytes for part in (*shared, rest))}, "weight_map": places}
    text = json.dumps(index, indent=1).encode() + b"\n"
    draft.write(f"{name}{INDEX}", [files.Frame(len(text), lambda: text)])
    return digests


def _save(shard: StateDict, draft: Draft, file: str) -> None:
    with collector_paused():
        draft.write(file, formats.parts(shard))


def share(donor: Donor, digest: str, draft: Draft, target: str) -> bool:
    """Share the donor's shard with this digest, if it has one; return whether that was possible."""
    if donor.place is None or digest not in donor.shards:
        return False
    file, facts = donor.shards[digest]
    return draft.share(donor.place, file, facts, target)


def digest_of(file: RankFile) -> str:
    """Return the SHA-256 of a file that a rank is about to write, and of the names of the items in it."""
    digest = sha256(
        repr([(each.item.fqn, each.item.offset, each.offset, each.nbytes) for each in file.stored]).encode()
    )
    # The other parts are computed from these.
    for part in file.parts:
        for chunk in () if part.last else part.chunks():
            digest.update(chunk)
    return digest.hexdigest()


def _shards(sizes: Mapping[str, int], tied: Iterable[tuple[str, ...]]) -> list[set[str]]:
    """Group the names of `sizes` (in bytes) into shards of at most LARGEST bytes, with tied names in the same shard."""
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
