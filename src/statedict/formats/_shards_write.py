"""A state in several files: which tensors go into which shard, what the shards are called, and their index.

Names are Hugging Face's: `model.safetensors` becomes `model-00001-of-00003.safetensors` and so on, and
`model.safetensors.index.json`.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from statedict import files
from statedict.files import Durable, Frame, Part
from statedict.state import Leaf, StateDict, leaf_of, raw_values, tensors_of

from ..errors import FormatError, SaveError
from ._json import read_json
from ._limits import LIMITS
from ._shards import INDEX, NUMBERED, weight_map

Parts = Callable[[Any, Mapping[str, str] | None], list[Part]]

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def byte_count(size: int | str) -> int:
    """Bytes of a size that is a number, or a text with a unit (powers of 1000; of 1024 with an `i`).

    Raises ValueError for anything else.

    >>> byte_count("5GB"), byte_count("2 MiB"), byte_count(1000)
    (5000000000, 2097152, 1000)
    """
    found = SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if found is not None:
        unit = UNITS[found[2].upper()]
        count = int(float(found[1]) * (1024 ** list(UNITS.values()).index(unit) if found[3] else unit))
    elif isinstance(size, int) and not isinstance(size, bool):
        count = size
    else:
        raise ValueError(f'a size is a number of bytes or a text as "5GB", not {size!r}')
    if count <= 0:
        raise ValueError(f"a shard of {count} bytes can hold nothing")
    return count


def write_sharded(
    obj: Any,
    path: str,
    parts: Parts,
    largest: int | str,
    metadata: Mapping[str, str] | None = None,
    durable: Durable = True,
) -> None:
    """Write a mapping of names to tensors as shards of at most `largest` bytes of tensors (or a text: `byte_count`), and
    an index; as the one file `path` where they fit in it. A tensor, or tied ones, larger than that get a shard of their own.

    The shards are all written before any old file is replaced, the index last; then files of an earlier save to this path
    that the new ones leave over are deleted. Raises SaveError where `obj` is no such mapping, and what `files.write_all`
    raises.
    """
    state = _named(obj)
    shards = split(state, byte_count(largest))
    targets = shard_paths(path, len(shards))
    left_over = _earlier(path)
    made = {target: parts(_shard(obj, state, names), metadata) for target, names in zip(targets, shards)}
    if len(targets) > 1:
        places = {name: os.path.basename(target) for target, names in zip(targets, shards) for name in names}
        made[path + INDEX] = _index_parts({name: places[name] for name in state}, state, metadata)
    files.write_all(made, durable=durable)
    for old in left_over:
        if old not in made:
            with suppress(FileNotFoundError):
                os.unlink(old)


def split(state: Mapping[str, Any], largest: int) -> list[list[str]]:
    """The names of each shard, in order; tied ones together, in the shard of the first."""
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


def shard_paths(path: str, count: int) -> list[str]:
    """The paths of so many shards; the path itself where there is one."""
    stem, suffix = os.path.splitext(path)
    return [path] if count == 1 else [f"{stem}-{n:05d}-of-{count:05d}{suffix}" for n in range(1, count + 1)]


def _index_parts(places: Mapping[str, str], state: Mapping[str, Any], metadata: Mapping[str, str] | None) -> list[Part]:
    if "total_size" in (metadata or {}):
        raise SaveError("the index says the total_size itself: no key of the metadata may be that")
    sizes = {_tie(name, value): _nbytes(value) for name, value in state.items()}
    index = {"metadata": {**(metadata or {}), "total_size": sum(sizes.values())}, "weight_map": places}
    text = json.dumps(index, indent=2).encode() + b"\n"
    if len(text) > LIMITS.json_bytes:
        raise SaveError(f"an index of {len(text):,} bytes is beyond the limit of {LIMITS.json_bytes:,}: shorten the names")
    return [Frame(len(text), lambda: text)]


def _named(obj: Any) -> Mapping[str, Any]:
    """The values of a state dict; raises SaveError where `obj` is none."""
    if not isinstance(obj, Mapping) or not all(isinstance(name, str) for name in obj):
        raise SaveError("only a mapping of names to tensors can be saved in shards; choose one state dict of it")
    state = raw_values(obj)
    for name, value in state.items():
        if leaf_of(value) is None and any(True for _ in tensors_of(value)):
            raise SaveError(
                f"{name!r} holds further tensors: only a mapping of names to tensors can be saved in shards"
            )
    return state


def _shard(obj: Any, state: Mapping[str, Any], names: Sequence[str]) -> StateDict:
    """The entries of those names; the state's `_metadata` goes into the shard that has its first entry."""
    metadata = getattr(obj, "_metadata", None)
    first = not state or next(iter(state)) in names
    kept = OrderedDict(metadata) if metadata is not None and first else None
    shard = StateDict.adopt({name: state[name] for name in names}, kept)
    shard.texts = getattr(obj, "texts", None)
    return shard


def _tie(name: str, value: Any) -> Hashable:
    """What tied values have in common."""
    leaf = leaf_of(value)
    return ("storage", leaf.storage.key) if isinstance(leaf, Leaf) and leaf.storage.nbytes else ("name", name)


def _nbytes(value: Any) -> int:
    leaf = leaf_of(value)
    return 0 if leaf is None else leaf.spec.nbytes if isinstance(leaf, Leaf) else leaf.nbytes


def _earlier(path: str) -> list[str]:
    """The files of an earlier save to `path`: itself, its index, the shards that this names."""
    index = path + INDEX
    found = [path, index]
    with suppress(OSError, FormatError):
        with open(index, "rb") as file:
            known = read_json(file.read(LIMITS.json_bytes), index, LIMITS)
        stem, suffix = os.path.splitext(os.path.basename(path))
        for shard in set(weight_map(known, index).values()):
            numbered = NUMBERED.fullmatch(shard)
            if numbered is not None and (numbered["stem"], numbered["suffix"]) == (stem, suffix):
                found.append(os.path.join(os.path.dirname(path), shard))
    return found
