"""Write a state to several files: assign tensors to shards, name the shards, write their index.

Names follow Hugging Face: `model.safetensors` becomes `model-00001-of-00003.safetensors` and so on, with
`model.safetensors.index.json`. If such a file exists already, a save adds a random mark to the new names, as in
`model-1f0c22ab-00001-of-00003.safetensors`: shards are never replaced, only the index is. Readers follow the index.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from statedict import files
from statedict.files import Durable, FileSet, Fill, Frame, Part
from statedict.state import Leaf, StateDict, leaf_of, raw_values, tensors_of

from ...errors import FormatError, SaveError
from .._json import read_json
from .._limits import LIMITS
from .._names import INDEX
from ._byte_count import byte_count
from ._shards import weight_map

Parts = Callable[[Any, Mapping[str, str] | None], list[Part]]


def _own_names(state: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: [name] for name in state}


def write_sharded(
    obj: Any,
    path: str,
    parts: Parts,
    largest: int | str,
    metadata: Mapping[str, str] | None = None,
    durable: Durable = True,
    names: Callable[[Mapping[str, Any]], Mapping[str, list[str]]] = _own_names,
    fill: Fill = files.fill,
) -> None:
    """Write a mapping of names to tensors as shards with at most `largest` bytes of tensors each (a number, or text:
    see `byte_count`) and an index; or as the single file `path` if everything fits. A tensor, or a group of tied ones,
    larger than that gets its own shard. `names` returns the names under which the format stores each value.

    Readers find either the earlier save at this path or the new one, complete; files of the earlier save that are no
    longer used are then deleted. Raises SaveError if `obj` is not such a mapping, and what `files.write_set` raises.
    """
    state = _named(obj)
    shards = split(state, byte_count(largest))
    made = [parts(_shard(obj, state, some), metadata) for some in shards]
    if len(shards) == 1:
        return write_whole(path, made[0], durable, fill)
    index = partial(_index_parts, state, shards, metadata, names)
    called = partial(shard_names, path, len(shards))
    wanted = FileSet(path, path + INDEX, index, made, called, partial(_earlier, path), numbered(path))
    files.write_set(wanted, durable=durable, fill=fill)


def write_whole(path: str, parts: list[Part], durable: Durable = True, fill: Fill = files.fill) -> None:
    """Write a single file; the index and the shards of an earlier save to `path`, if there are any, are then deleted.

    Otherwise the folder would hold both, and a reader that prefers the index would load the old values.
    """
    if os.path.lexists(path + INDEX):
        wanted = FileSet(path, path, lambda _: parts, [], lambda _: [], partial(_earlier, path), numbered(path))
        files.write_set(wanted, durable=durable, fill=fill)
    else:
        files.write(path, parts, durable=durable, fill=fill)


def split(state: Mapping[str, Any], largest: int) -> list[list[str]]:
    """Return the names of each shard, in order; tied tensors are together, in the shard of the first."""
    groups: dict[Hashable, list[str]] = {}
    for name, value in state.items():
        groups.setdefault(_tie(name, value), []).append(name)
    shards: list[list[str]] = [[]]
    filled = 0
    for names in groups.values():
        # Some formats write a tied tensor under each of its names.
        nbytes = sum(_nbytes(state[name]) for name in names)
        if shards[-1] and filled + nbytes > largest:
            shards.append([])
            filled = 0
        shards[-1] += names
        filled += nbytes
    order = {name: place for place, name in enumerate(state)}
    return [sorted(names, key=order.__getitem__) for names in shards]


def shard_names(path: str, count: int, mark: str = "") -> list[str]:
    """Return the names of `count` shards of `path`, with the mark of a save if it has one.

    >>> shard_names("run/m.bin", 2), shard_names("run/m.bin", 1, "1f0c22ab")
    (['m-00001-of-00002.bin', 'm-00002-of-00002.bin'], ['m-1f0c22ab-00001-of-00001.bin'])
    """
    stem, suffix = os.path.splitext(os.path.basename(path))
    start = f"{stem}-{mark}" if mark else stem
    return [f"{start}-{n:05d}-of-{count:05d}{suffix}" for n in range(1, count + 1)]


def numbered(path: str) -> Callable[[str], bool]:
    """Return a function that returns whether a name is that of a shard of `path`."""
    stem, suffix = map(re.escape, os.path.splitext(os.path.basename(path)))
    shape = re.compile(rf"{stem}(?:-[0-9a-f]{{8}})?-\d{{5,9}}-of-\d{{5,9}}{suffix}")
    return lambda name: shape.fullmatch(name) is not None


def _index_parts(
    state: Mapping[str, Any],
    shards: Sequence[Sequence[str]],
    metadata: Mapping[str, str] | None,
    stored: Callable[[Mapping[str, Any]], Mapping[str, list[str]]],
    targets: Sequence[str],
) -> list[Part]:
    if "total_size" in (metadata or {}):
        raise SaveError("total_size is a reserved key of the index: use another key in the metadata")
    places = {name: target for target, names in zip(targets, shards) for name in names}
    sizes = {_tie(name, value): _nbytes(value) for name, value in state.items()}
    index = {
        "metadata": {**(metadata or {}), "total_size": sum(sizes.values())},
        "weight_map": {part: places[name] for name, parts in stored(state).items() for part in parts},
    }
    text = json.dumps(index, indent=2).encode() + b"\n"
    if len(text) > LIMITS.json_bytes:
        raise SaveError(
            f"an index of {len(text):,} bytes exceeds the limit of {LIMITS.json_bytes:,}: shorten the names"
        )
    return [Frame(len(text), lambda: text)]


def _named(obj: Any) -> Mapping[str, Any]:
    """Return the values of a state dict; raise SaveError if `obj` is not one."""
    if not isinstance(obj, Mapping) or not all(isinstance(name, str) for name in obj):
        raise SaveError("only a mapping of names to tensors can be saved in shards; save one state dict of the object")
    state = raw_values(obj)
    for name, value in state.items():
        if leaf_of(value) is None and any(leaf_of(found) is not None for found in tensors_of(value)):
            raise SaveError(
                f"{name!r} contains nested tensors: only a mapping of names to tensors can be saved in shards"
            )
    return state


def _shard(obj: Any, state: Mapping[str, Any], names: Sequence[str]) -> StateDict:
    """Return the entries of those names; the state's `_metadata` goes into the shard that has its first entry."""
    metadata = getattr(obj, "_metadata", None)
    first = not state or next(iter(state)) in names
    kept = OrderedDict(metadata) if metadata is not None and first else None
    shard = StateDict.adopt({name: state[name] for name in names}, kept)
    shard.texts = getattr(obj, "texts", None)
    return shard


def _tie(name: str, value: Any) -> Hashable:
    """Return a key that is equal for tied values."""
    leaf = leaf_of(value)
    return ("storage", leaf.storage.key) if isinstance(leaf, Leaf) and leaf.storage.nbytes else ("name", name)


def _nbytes(value: Any) -> int:
    leaf = leaf_of(value)
    return 0 if leaf is None else leaf.nbytes


def _earlier(path: str) -> list[str]:
    """Return the names of the files of an earlier save to `path`: its index, the file itself, the shards in the index."""
    index = path + INDEX
    names = [os.path.basename(index)] if os.path.lexists(index) else []
    if os.path.isfile(path):
        names.append(os.path.basename(path))
    with suppress(OSError, FormatError):
        with open(index, "rb") as file:
            known = read_json(file.read(LIMITS.json_bytes), index, LIMITS)
        names += filter(numbered(path), set(weight_map(known, index).values()))
    return names
