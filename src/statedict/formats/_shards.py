"""Checkpoints in several files: an index (`*.index.json`, Hugging Face's form) says in which shard each tensor lies.

Only files in the index's own folder can be named. Each shard is opened as the checkpoint that it is, whatever its format,
so its tensors are known at once and read when they are asked for.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from statedict import files
from statedict.files import File

from ..errors import FormatError
from ._checkpoint import Checkpoint, Finding
from ._json import read_json
from ._limits import LIMITS, Limits
from ._mistaken import unknown
from ._shelf import is_plain_name

INDEX = ".index.json"
NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,9})-of-(?P<count>\d{5,9})(?P<suffix>(?:\.\w+)?)")


def read_index(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """The Checkpoint that an index and its shards are."""
    if file.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", f"an index of {file.size:,} bytes")
    index = read_json(file.read(0, file.size), file.name, limits)
    if "weight_map" not in index:
        raise unknown(file)
    places = weight_map(index, file.name)
    metadata = index.get("metadata")
    facts = {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    names = list(dict.fromkeys(places.values()))
    # Each open shard of a remote set costs a few round trips.
    threads = files.WAITING if file.far else 1
    shards = _open_all(partial(_beside, file), os.path.dirname(file.name), names, limits, threads)
    try:
        values, notes = _indexed(places, dict(zip(names, shards)))
    except BaseException:
        _close(shards)
        raise
    file.close()
    return _joined(file.name, values, shards, file.size, facts, notes)


def read_numbered(folder: str, names: Sequence[str], limits: Limits = LIMITS) -> Checkpoint:
    """The Checkpoint that numbered shards without an index are: all of them, each tensor in one."""
    shards = _open_all(lambda name: files.open(os.path.join(folder, name)), folder, complete(names, folder), limits)
    values: dict[str, Any] = {}
    try:
        for shard in shards:
            for name, value in _state(shard).items():
                if name in values:
                    raise FormatError("another shard has a tensor of this name too", file=shard.path, member=name)
                values[name] = value
    except BaseException:
        _close(shards)
        raise
    return _joined(folder, values, shards, 0, {}, ["the shards have no index"])


def complete(names: Iterable[str], folder: str) -> list[str]:
    """The names of numbered shards in order; raises FormatError where one is missing, or they are of several sets.

    >>> complete(["m-00002-of-00002.bin", "m-00001-of-00002.bin"], "folder")
    ['m-00001-of-00002.bin', 'm-00002-of-00002.bin']
    """
    found = [match for name in sorted(names) if (match := NUMBERED.fullmatch(name))]
    if len({(match["stem"], match["count"], match["suffix"]) for match in found}) != 1:
        raise FormatError("it holds shards of several checkpoints, and no index", file=folder, hint="open one shard")
    numbers, count = [int(match["number"]) for match in found], int(found[0]["count"])
    # Most writers count from 1, some from 0.
    if len(found) != count or numbers[0] > 1:
        raise FormatError(
            f"{len(found):,} of its {count:,} shards are there", file=folder, hint="fetch or save it again"
        )
    return [match[0] for match in found]


def weight_map(index: Any, file: str) -> dict[str, str]:
    """The shard of each tensor that an index names; raises FormatError where one is no plain name."""
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise FormatError("it has no weight_map of tensors to files", file=file)
    for name, shard in places.items():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise FormatError(f"the index puts it in {shard!r}, no file beside it"[:400], file=file, member=name)
    return places


def _indexed(places: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> tuple[dict[str, Any], list[str]]:
    """The values of an index's names, in its order, and what is odd about them."""
    states = {name: _state(shard) for name, shard in shards.items()}
    for name, shard in places.items():
        if name not in states[shard]:
            raise FormatError(
                "the index puts it in this shard, which does not have it", file=shards[shard].path, member=name
            )
    extra = sum(len(state) for state in states.values()) - len(places)
    return (
        {name: states[shard][name] for name, shard in places.items()},
        [f"{extra:,} tensors of the shards are not in the index"] if extra else [],
    )


def _joined(
    path: str,
    values: dict[str, Any],
    shards: Sequence[Checkpoint],
    size: int,
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> Checkpoint:
    state: dict[str, Any] = OrderedDict(values)
    kept = [shard.object._metadata for shard in shards if getattr(shard.object, "_metadata", None) is not None]
    if kept:
        state._metadata = kept[0]  # type: ignore[attr-defined]
    common = dict(set.intersection(*(set(shard.metadata.items()) for shard in shards))) if shards else {}
    return Checkpoint(
        path,
        "sharded",
        state,
        size=size + sum(shard.size for shard in shards),
        producer=", ".join(dict.fromkeys(shard.producer for shard in shards)),
        globals=list(dict.fromkeys(named for shard in shards for named in shard.globals)),
        notes=list(dict.fromkeys([*notes, *(note for shard in shards for note in shard.notes)])),
        metadata={**common, **facts, "shards": str(len(shards))},
        checks=partial(_check, shards),
        close=partial(_close, shards),
    )


def _beside(index: File, name: str) -> File:
    file = index.beside(name)
    if file is None:
        raise FormatError("its shards lie beside it", file=index.name, hint="open an index by its path")
    return file


def _open_all(
    place: Callable[[str], File], folder: str, names: Sequence[str], limits: Limits, threads: int = 1
) -> list[Checkpoint]:
    """The shards of those names, where `place` has them; none stays open where one of them cannot be opened."""
    opened: dict[str, Checkpoint] = {}

    def take(name: str) -> None:
        opened[name] = _open(place, name, os.path.join(folder, name), limits)

    try:
        files.spread(take, names, threads)
    except BaseException:
        _close(opened.values())
        raise
    return [opened[name] for name in names]


def _open(place: Callable[[str], File], name: str, path: str, limits: Limits) -> Checkpoint:
    from ._table import head_of, is_index, read

    try:
        file = place(name)
    except OSError as error:
        raise FormatError(f"this shard cannot be opened: {error.strerror}", file=path) from error
    try:
        # An index among the shards could name itself, and so on for ever.
        if is_index(head_of(file), file):
            raise FormatError("a shard cannot be JSON", file=path)
        return read(file, limits)
    except BaseException:
        file.close()
        raise


def _state(shard: Checkpoint) -> Mapping[str, Any]:
    if not isinstance(shard.object, Mapping) or not all(isinstance(name, str) for name in shard.object):
        raise FormatError("a shard should be a mapping of names to tensors", file=shard.path)
    return shard.object


def _check(shards: Iterable[Checkpoint]) -> Iterator[Finding]:
    for shard in shards:
        yield from shard._checks()


def _close(shards: Iterable[Checkpoint]) -> None:
    for shard in shards:
        shard.close()
