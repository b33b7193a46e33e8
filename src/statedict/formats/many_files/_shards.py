"""Checkpoints in several files: an index (`*.index.json`, as Hugging Face writes) maps each tensor to a shard.

An index can only name files in its own folder. Each shard is opened as a checkpoint of whatever format it has, so
tensors are known at once and read on demand; only the most recently used files stay open. A missing or damaged shard is
an error only if one of its tensors is needed.
"""

from __future__ import annotations

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from statedict import files
from statedict.files import File, Folder, is_plain_name
from statedict.state import Absent, Compound, Leaf

from ...errors import FormatError
from .._foreign_formats import unknown
from .._format import head_of
from .._json import read_json_file
from .._limits import LIMITS, Limits
from ..checkpoint._checkpoint import Checkpoint, Finding

NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,9})-of-(?P<count>\d{5,9})(?P<suffix>(?:\.\w+)?)")
# Numbered shards of which more are missing are refused.
MOST_MISSING = 10_000
# Why shards cannot be read, by name: FileNotFoundError if they are missing.
Failures = dict[str, FormatError | FileNotFoundError]


def read_index(file: File, limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint of an index and its shards."""
    index = read_json_file(file, limits)
    if "weight_map" not in index:
        raise unknown(file, head_of(file))
    places = weight_map(index, file.name)
    metadata = index.get("metadata")
    facts = {key: str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {}
    names = list(dict.fromkeys(places.values()))
    close: Callable[[], None]
    if file.far:
        # Each shard costs a few round trips and holds no file descriptor.
        shards, failed = opened_shards(partial(_beside, file), names, file.name, limits, files.WAITING)
        close = partial(_close, shards)
    else:
        folder = Folder(os.path.dirname(file.name), partial(_beside, file))
        shards, failed = opened_shards(folder.file, names, file.name, limits)
        close = folder.close
    try:
        values, notes = _indexed(places, _states(shards, failed), failed, os.path.dirname(file.name))
    except BaseException:
        close()
        raise
    file.close()
    return joined(file.name, values, shards, file.size, facts, notes, close, _problems(failed))


def read_numbered(folder: Folder, names: Sequence[str], limits: Limits = LIMITS) -> Checkpoint:
    """Open the Checkpoint of numbered shards without an index: all of them, each tensor in one.

    The names of tensors in a missing or damaged shard are not known: an absent tensor with the name of the file stands for
    them.
    """
    values: dict[str, Any] = {}
    shards, failed = opened_shards(folder.file, complete(names, folder.path), folder.path, limits)
    for shard, state in _states(shards, failed).items():
        for name, value in state.items():
            if name in values:
                raise FormatError(
                    "another shard also has a tensor of this name", file=folder.path_of(shard), member=name
                )
            values[name] = value
    values |= {name: _absent(name, folder.path_of(name), error) for name, error in failed.items()}
    notes = ["the shards have no index", *(f"{name} {_reason(error)}" for name, error in failed.items())]
    return joined(folder.path, values, shards, 0, {}, notes, folder.close, _problems(failed))


def complete(names: Iterable[str], folder: str) -> list[str]:
    """Return the names of all numbered shards in order, missing ones too; raise FormatError if they belong to several sets.

    >>> complete(["m-00003-of-00003.bin", "m-00001-of-00003.bin"], "folder")
    ['m-00001-of-00003.bin', 'm-00002-of-00003.bin', 'm-00003-of-00003.bin']
    """
    found = [match for name in sorted(names) if (match := NUMBERED.fullmatch(name))]
    if len({(match["stem"], match["count"], match["suffix"], len(match["number"])) for match in found}) != 1:
        raise FormatError(
            "this directory contains shards of several checkpoints, and no index",
            file=folder,
            hint="open one of the shards",
        )
    numbers, one = {int(match["number"]) for match in found}, found[0]
    # Most writers count from 1, some from 0.
    first = min(numbers | {1})
    every = range(first, first + int(one["count"]))
    if len(every) > MOST_MISSING + len(numbers) or not numbers <= {*every}:
        raise FormatError(
            f"{len(found):,} of its {len(every):,} shards are there", file=folder, hint="download or save it again"
        )
    width = len(one["number"])
    return [f"{one['stem']}-{number:0{width}}-of-{one['count']}{one['suffix']}" for number in every]


def weight_map(index: Any, file: str) -> dict[str, str]:
    """Return the shard name of each tensor in an index; raise FormatError if one is not a plain name."""
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict):
        raise FormatError("the index has no valid weight_map from tensor names to file names", file=file)
    plain = set(filter(is_plain_name, {shard for shard in places.values() if isinstance(shard, str)}))
    for name, shard in places.items():
        if not isinstance(shard, str) or shard not in plain:
            raise FormatError(
                f"the index places it in {shard!r}, which is not a plain file name"[:400], file=file, member=name
            )
    return places


def _states(shards: Mapping[str, Checkpoint], failed: Failures) -> dict[str, Mapping[str, Any]]:
    """Return the states of shards, and add those that have none to `failed`; raise the first error if no shard has one."""
    states: dict[str, Mapping[str, Any]] = {}
    for name, shard in shards.items():
        try:
            states[name] = state_of(shard)
        except FormatError as error:
            failed[name] = error
    if failed and not states:
        raise next(iter(failed.values()))
    return states


def _indexed(
    places: Mapping[str, str], states: Mapping[str, Mapping[str, Any]], failed: Failures, folder: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the values of an index's names, in its order, and the problems found."""
    owners = {shard: _owners(state) for shard, state in states.items()}
    values: dict[str, Any] = {}
    for name, shard in places.items():
        if shard in failed:
            values[name] = _absent(name, os.path.join(folder, shard), failed[shard])
        elif name in states[shard]:
            values[name] = states[shard][name]
        elif name in owners[shard]:
            owner = owners[shard][name]
            values[owner] = states[shard][owner]
        else:
            path = os.path.join(folder, shard)
            raise FormatError("the index places it in this shard, which does not contain it", file=path, member=name)
    values |= _tied_names(values, states)
    lost = Counter(shard for shard in places.values() if shard in failed)
    extra = sum(map(len, states.values())) - (len(values) - lost.total())
    return values, [
        *(
            f"{shard} {_reason(failed[shard])}; it contains {count:,} of the {len(places):,} tensors"
            for shard, count in lost.items()
        ),
        *([f"{extra:,} tensors of the shards are not in the index"] if extra else []),
    ]


def _tied_names(values: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tensors of shards that are not in the index because they are tied to one that is."""
    storages = {id(value.storage) for value in values.values() if isinstance(value, Leaf) and value.row is None}
    return {
        name: value
        for state in states.values()
        for name, value in state.items()
        if name not in values and isinstance(value, Leaf) and value.row is None and id(value.storage) in storages
    }


def _absent(name: str, path: str, error: FormatError | FileNotFoundError) -> Absent:
    return Absent(name, path, cause=error if isinstance(error, FormatError) else None)


def _reason(error: FormatError | FileNotFoundError) -> str:
    """Return why a shard cannot be read, to follow its name."""
    return f"cannot be read ({error.reason})" if isinstance(error, FormatError) else "is missing"


def _problems(failed: Failures) -> list[Finding]:
    return [
        Finding.of(name, error) if isinstance(error, FormatError) else Finding("error", name, "this shard is missing")
        for name, error in failed.items()
    ]


def _owners(state: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of the tensor that each part of a tensor which wraps others belongs to."""
    compounds = ((name, value) for name, value in state.items() if isinstance(value, Compound))
    return {f"{name}.{role}": name for name, value in compounds for role in value.parts}


def joined(
    path: str,
    values: dict[str, Any],
    opened: Mapping[str, Checkpoint],
    size: int,
    facts: Mapping[str, str],
    notes: Sequence[str],
    close: Callable[[], None],
    problems: Sequence[Finding] = (),
) -> Checkpoint:
    """Return the Checkpoint of values from several open files; `problems` are reported by `verify`."""
    state: dict[str, Any] = OrderedDict(values)
    shards = list(opened.values())
    kept = [shard.object._metadata for shard in shards if getattr(shard.object, "_metadata", None) is not None]
    if kept:
        state._metadata = kept[0]  # type: ignore[attr-defined]
    common = dict(set.intersection(*(set(shard.metadata.items()) for shard in shards))) if shards else {}
    count = len(
        {shard.path for shard in shards} | {value.file for value in values.values() if isinstance(value, Absent)}
    )
    return Checkpoint(
        path,
        "sharded",
        state,
        size=size + sum(shard.size for shard in shards),
        producer=", ".join(dict.fromkeys(shard.producer for shard in shards)) or "unknown",
        globals=list(dict.fromkeys(named for shard in shards for named in shard.globals)),
        notes=list(dict.fromkeys([*notes, *(note for shard in shards for note in shard.notes)])),
        metadata={**common, **facts, "shards": str(count)},
        checks=partial(_check, shards, problems),
        close=close,
    )


def _beside(index: File, name: str) -> File:
    file = index.beside(name)
    if file is None:
        raise FormatError("its shards are in the same directory", file=index.name, hint="open the index by its path")
    return file


def opened_shards(
    place: Callable[[str], File], names: Sequence[str], index: str, limits: Limits, threads: int = 1
) -> tuple[dict[str, Checkpoint], Failures]:
    """Open the shards with those names with `place`; return them, and why others cannot be read.

    Raises FormatError if none can be read, OSError if one is there but cannot be opened.
    """
    found: dict[str, Checkpoint] = {}
    failed: Failures = {}

    def take(name: str) -> None:
        try:
            found[name] = _open(place(name), limits)
        except (FormatError, FileNotFoundError) as error:
            failed[name] = error

    try:
        files.spread(take, names, threads)
    except BaseException:
        _close(found)
        raise
    for error in failed.values():
        if not found and isinstance(error, FormatError):
            raise error
    if failed and not found:
        raise FormatError(f"all of its {len(names):,} shards are missing", file=index, hint="download the shards too")
    return {name: found[name] for name in names if name in found}, {
        name: failed[name] for name in names if name in failed
    }


def _open(file: File, limits: Limits) -> Checkpoint:
    from .._table import is_index, read

    try:
        # An index among the shards could name itself and cause infinite recursion.
        if is_index(head_of(file), file):
            raise FormatError("a shard must not be a JSON file", file=file.name)
        return read(file, limits)
    except BaseException as error:
        file.close()
        if isinstance(error, FormatError):
            error.located(file=file.name)
        raise


def state_of(shard: Checkpoint) -> Mapping[str, Any]:
    """Return the tensors of a shard by name; raise FormatError if it contains anything else."""
    if not isinstance(shard.object, Mapping) or not all(isinstance(name, str) for name in shard.object):
        raise FormatError("a shard must contain a mapping of names to tensors", file=shard.path)
    return shard.object


def _check(shards: Iterable[Checkpoint], problems: Sequence[Finding]) -> Iterator[Finding]:
    yield from problems
    for shard in shards:
        yield from shard._checks()


def _close(shards: Mapping[str, Checkpoint]) -> None:
    for shard in shards.values():
        shard.close()
