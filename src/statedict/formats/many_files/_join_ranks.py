"""Join what the ranks of a job saved: trees of which each has its own parts of the same tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from itertools import chain, combinations
from math import prod
from typing import Any

from statedict.state import Box, Leaf, Parts, Piece, join_pieces

from ...errors import FormatError, PartError
from ..storages._describe import step_of

# Deeper values are those of the first rank.
DEEPEST = 100
# Parts are compared in pairs, if one is missing; more of them are only counted.
MOST_COMPARED = 256


def join_ranks(trees: Sequence[Any], where: str) -> Any:
    """Return what several ranks saved, as one tree: the function behind `formats.join_ranks`."""
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
                self._known[key] = join_parts("/".join(path), alike, self._where)
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


def join_parts(name: str, parts: Sequence[Parts], where: str) -> Leaf:
    """Return the tensor that the parts of several ranks form; Parts with gaps if some are missing.

    `where` is the file or folder, for errors. Raises FormatError if the parts contradict each other.
    """
    first = parts[0]
    open_ended = first.storage.where.open_ended
    if len({(part.spec.dtype, len(part.spec.shape)) for part in parts}) > 1:
        raise FormatError("its parts differ in dtype or number of dimensions", file=where, member=name)
    shape = tuple(map(max, zip(*(part.spec.shape for part in parts))))
    if not open_ended and any(part.spec.shape != shape for part in parts):
        raise FormatError("its parts belong to tensors of different shapes", file=where, member=name)
    # Several ranks may have saved the same part: replicas.
    pieces: dict[Box, Piece] = {}
    for piece in (piece for part in parts for piece in part.pieces):
        pieces.setdefault(piece.box, piece)
    try:
        return join_pieces(first.spec.dtype, shape, pieces.values(), first.traits)
    except PartError:
        if not open_ended:
            _require_apart(name, list(pieces), shape, where)
        placement = f"{len(pieces)} parts with gaps" if open_ended else first.placement
        return Parts(
            first.spec.dtype,
            shape,
            pieces.values(),
            placement,
            first.traits,
            open_ended=open_ended,
            where=f"{where}: {name}",
        )


def _require_apart(name: str, boxes: Sequence[Box], shape: Sequence[int], where: str) -> None:
    """Raise FormatError if some of the boxes have elements in common."""
    crowded = sum(prod(box.sizes) for box in boxes) > prod(shape)
    pairs = combinations(boxes, 2) if len(boxes) <= MOST_COMPARED else ()
    if crowded or any(one.within(other) for one, other in pairs):
        raise FormatError("its parts overlap: they cannot all belong to the same tensor", file=where, member=name)
