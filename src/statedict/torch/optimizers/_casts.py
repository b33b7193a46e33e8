"""The casts of an optimizer's state. Whether an element would become infinite is decided before anything changes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from statedict.state import DType, Leaf, ValueRange, cast_kind, map_tree, materialize
from statedict.tree import Cast

from ..modules._read_into import GROUP, grouped
from ..tensors._extent import extent
from ..tensors._library import TORCH
from ._place import Made, StatePlacement, changes, placed


class _Change(NamedTuple):
    """The cast of the tensor at `key` (None: in a list) in the state with this number."""

    number: int
    key: Any
    found: DType
    wanted: DType


def cast_all(
    labels: Sequence[str], states: list[Any], places: Sequence[StatePlacement], *, verify: bool
) -> list[tuple[str, Cast]]:
    """Return the casts that `placed` will make of the states, each with the label of its parameter.

    A tensor is read if only its elements show whether they are in the range of the new dtype. If it is in a file, it is cast
    at once, because reading it again would take as long: in `states`, what was Made of it replaces it.
    """
    casts: list[tuple[str, Cast]] = []
    unread: list[tuple[_Change, Leaf]] = []

    def add(change: _Change, tensor: Any) -> None:
        number, key, found, wanted = change
        kind = cast_kind(found, wanted, None if isinstance(tensor, Leaf) else partial(extent, tensor)) or "rounding"
        name = labels[number] if key is None else f"{labels[number]}.{key}"
        casts.append((labels[number], Cast(name, found.name, wanted.name, kind)))

    for number, (state, place) in enumerate(zip(states, places)):
        for key, tensor, found, wanted in () if place.as_read else changes(state, place):
            if isinstance(tensor, Leaf) and _depends(found, wanted):
                unread.append((_Change(number, key, found, wanted), tensor))
            else:
                add(_Change(number, key, found, wanted), tensor)
    made: dict[int, dict[int, Made]] = {}
    for group in grouped(unread, GROUP):  # one by one, small tensors would take ten times as long
        read = materialize([leaf for _, leaf in group], TORCH, verify=verify)
        for (change, leaf), tensor in zip(group, read):
            add(change, tensor)
            known = made.setdefault(change.number, {})
            known[id(leaf)] = Made(placed(tensor, places[change.number], change.key))
    for number, known in made.items():
        states[number] = map_tree(states[number], partial(_replaced, known))
    return casts


def _replaced(known: dict[int, Made], value: Any) -> Any:
    return known.get(id(value), value)


@cache
def _depends(found: DType, wanted: DType) -> bool:
    """Return whether the kind of the cast depends on the elements."""
    asked: list[bool] = []

    def ask() -> ValueRange:
        asked.append(True)
        return ValueRange()

    cast_kind(found, wanted, ask)
    return bool(asked)
