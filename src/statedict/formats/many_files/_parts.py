"""Checkpoints whose tensors are divided among the files of several ranks.

Two kinds of files are joined:

- `shard-00001-model-00001-of-00001.safetensors` and so on, which `HuggingFaceStorageWriter(save_distributed=True)` of
  torch.distributed.checkpoint writes, one for each rank. A tensor is as large as its parts reach together, as in PyTorch's
  own reader.
- files of one format whose names differ in one number (`rank_0.pt`, `rank_1.pt`), if they contain DTensors: what each rank
  saved with torch.save. Values other than DTensors are those of the first file.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import chain, combinations
from math import prod
from typing import Any

from statedict.files import Folder
from statedict.state import Box, Leaf, Parts, Piece, join_pieces

from ...errors import FormatError, PartError
from .._limits import Limits
from .._names import OF_A_RANK
from ..checkpoint._checkpoint import OF_ONE_RANK, Checkpoint, Finding
from ..checkpoint._walk import tensors
from ..safetensors._parts import ONE_RANK
from ..storages._describe import step_of
from ._shards import joined, opened_shards, state_of

# Deeper values are those of the first rank.
DEEPEST = 100
# Parts are compared in pairs, if one is missing; more of them are only counted.
MOST_COMPARED = 256
# With `enable_consolidation`, the files of ranks are written to this folder first.
SHARDED = "sharded"


def read_parts(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint that the safetensors files of all ranks form, in the folder or in its `sharded` folder.

    A tensor of which a part is missing raises PartError if it is read.
    """
    if SHARDED in folder.folders and not any(map(OF_A_RANK.fullmatch, folder.files)):
        folder = folder.folder(SHARDED)
    names = list(filter(OF_A_RANK.fullmatch, folder.files))
    shards = opened_shards(folder.file, names, folder.path, limits)
    found: dict[str, list[Parts]] = {}
    for shard in shards.values():
        shard.notes = [note for note in shard.notes if note != ONE_RANK]
        for name, value in state_of(shard).items():
            if not isinstance(value, Parts):
                raise FormatError("it does not say where in the whole tensor it belongs", file=shard.path, member=name)
            found.setdefault(name, []).append(value)
    state = OrderedDict((name, _joined(name, parts, folder.path)) for name, parts in found.items())
    ranks = [int(match["rank"]) for name in names if (match := OF_A_RANK.fullmatch(name))]
    return joined(
        folder.path, state, shards, 0, {}, _notes(len({*ranks}), ranks, 1), folder.close, _problems(state.items())
    )


def rank_files(names: Sequence[str]) -> dict[int, str]:
    """Return files whose names differ in one number only, by that number; an empty dict if they differ otherwise.

    >>> rank_files(["model_world_2_rank_1.pt", "model_world_2_rank_0.pt"])
    {0: 'model_world_2_rank_0.pt', 1: 'model_world_2_rank_1.pt'}
    """
    fields = [re.split(r"(\d{1,9})", name) for name in names]
    different = [set(column) for column in zip(*fields) if len(set(column)) > 1]
    if len(set(map(len, fields))) > 1 or len(different) != 1 or not all(map(str.isdigit, different[0])):
        return {}
    at = next(place for place, column in enumerate(zip(*fields)) if len(set(column)) > 1)
    return dict(sorted((int(field[at]), name) for field, name in zip(fields, names)))


def read_ranks(folder: Folder, files: dict[int, str], limits: Limits) -> Checkpoint | None:
    """Open the Checkpoint that the files of all ranks form (`rank_files`); None if they do not contain DTensors of
    different ranks."""
    names = list(files.values())
    # A folder may have thousands of numbered files without DTensors: one of them shows it.
    (one,) = opened_shards(folder.file, names[:1], folder.path, limits).values()
    if not _parts_by_path(one.object):
        return None
    shards = opened_shards(folder.file, names, folder.path, limits)
    every = [_parts_by_path(shard.object) for shard in shards.values()]
    # Files that all have the same boxes are not of different ranks: they may be of different steps.
    if not all(every) or len(set(map(_boxes_of, every))) == 1:
        return None
    for shard in shards.values():
        shard.notes = [note for note in shard.notes if OF_ONE_RANK not in note]
    tree = join_ranks([shard.object for shard in shards.values()], folder.path)
    notes = _notes(len(shards), list(files), min(files))
    checkpoint = joined(folder.path, {}, shards, 0, {}, notes, folder.close, _problems(tensors(tree)))
    checkpoint.object = tree
    return checkpoint


def join_ranks(trees: Sequence[Any], where: str) -> Any:
    """Return what several ranks saved, as one tree: Parts are joined, and other values are those of the first rank that has
    them. `where` is the file or folder, for errors.

    A tensor of which a part is missing stays Parts: reading it raises PartError. Raises FormatError if parts contradict
    each other: in dtype or shape, or because they overlap.
    """
    return _RankMerge(where).of(trees, ())


class _RankMerge:
    """Merges the values of several ranks at one path; values that are shared stay shared, cycles too."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: dict[tuple[int, ...], Any] = {}

    def of(self, values: Sequence[Any], path: tuple[str, ...]) -> Any:
        first = values[0]
        if type(first) not in (dict, OrderedDict, list, Parts) or len(path) > DEEPEST:
            return first
        key = tuple(map(id, values))
        if key not in self._known:
            alike = [value for value in values if type(value) is type(first)]
            if isinstance(first, Parts):
                self._known[key] = _joined("/".join(path), alike, self._where)
            elif isinstance(first, list):
                self._known[key] = self._list(alike, path, key)
            else:
                self._dict(alike, path, key)
        return self._known[key]

    def _list(self, lists: Sequence[list[Any]], path: tuple[str, ...], key: tuple[int, ...]) -> list[Any]:
        found = self._known[key] = list(lists[0])
        if all(len(each) == len(found) for each in lists):
            found[:] = [self.of(items, (*path, str(at))) for at, items in enumerate(zip(*lists))]
        return found

    def _dict(self, dicts: Sequence[dict[Any, Any]], path: tuple[str, ...], key: tuple[int, ...]) -> None:
        found = self._known[key] = copy(dicts[0])
        for name in dict.fromkeys(chain.from_iterable(dicts)):
            found[name] = self.of([each[name] for each in dicts if name in each], (*path, step_of(name)))


def _parts_by_path(tree: object) -> dict[str, Parts]:
    return {path: value for path, value in tensors(tree) if isinstance(value, Parts)}


def _boxes_of(parts: dict[str, Parts]) -> tuple[object, ...]:
    return tuple(piece.box for part in parts.values() for piece in part.pieces)


def _joined(name: str, parts: Sequence[Parts], folder: str) -> Leaf:
    first = parts[0]
    open_ended = first.storage.where.open_ended
    if len({(part.spec.dtype, len(part.spec.shape)) for part in parts}) > 1:
        raise FormatError("its parts differ in dtype or number of dimensions", file=folder, member=name)
    shape = tuple(map(max, zip(*(part.spec.shape for part in parts))))
    if not open_ended and any(part.spec.shape != shape for part in parts):
        raise FormatError("its parts belong to tensors of different shapes", file=folder, member=name)
    # Several ranks may have saved the same part: replicas.
    pieces: dict[Box, Piece] = {}
    for piece in (piece for part in parts for piece in part.pieces):
        pieces.setdefault(piece.box, piece)
    try:
        return join_pieces(first.spec.dtype, shape, pieces.values(), first.traits)
    except PartError:
        if not open_ended:
            _require_apart(name, list(pieces), shape, folder)
        placement = f"{len(pieces)} parts with gaps" if open_ended else first.placement
        return Parts(
            first.spec.dtype,
            shape,
            pieces.values(),
            placement,
            first.traits,
            open_ended=open_ended,
            where=f"{folder}: {name}",
        )


def _require_apart(name: str, boxes: Sequence[Box], shape: Sequence[int], folder: str) -> None:
    """Raise FormatError if some of the boxes have elements in common."""
    crowded = sum(prod(box.sizes) for box in boxes) > prod(shape)
    pairs = combinations(boxes, 2) if len(boxes) <= MOST_COMPARED else ()
    if crowded or any(one.within(other) for one, other in pairs):
        raise FormatError("its parts overlap: they cannot all belong to the same tensor", file=folder, member=name)


def _problems(values: Iterable[tuple[str, object]]) -> list[Finding]:
    return [
        Finding("error", name, "parts of this tensor are missing") for name, value in values if isinstance(value, Parts)
    ]


def _notes(count: int, ranks: Sequence[int], first: int) -> list[str]:
    """Return notes on the files that were joined and the numbers that are missing."""
    gaps = sorted(set(range(first, max(ranks) + 1)) - set(ranks))
    listed = ", ".join(map(str, gaps[:8]))
    missing = [f"there is no file of rank {listed} (a rank may have had no part)"] if gaps else []
    whose = "the file of 1 rank" if count == 1 else f"the files of {count:,} ranks"
    return [f"the tensors are read from {whose}", *missing]
