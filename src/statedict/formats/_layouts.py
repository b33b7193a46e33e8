"""Pickles that were read before: the next file with the very same one needs no parsing.

A run's checkpoints differ in the elements of their tensors, and these are not in the pickle. Of one that holds whole states
of many tensors, beside plain values, the tree is kept without its leaves, and the leaves in columns; a file that has the
same pickle gets new leaves of its own, after all the checks that tie them to its members.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Leaf

from ._limits import Limits
from ._pickle import Import, Parsed, Records, Size, TorchConstant
from ._recent import Recent

if TYPE_CHECKING:
    from ._file_rows import FileRows

# States of fewer tensors are read as quickly as they are found again.
FEW = 256
# What lies deeper is not kept: a checkpoint's plain values lie within a few steps.
DEEPEST = 8
ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), DType, Size, TorchConstant})
DICTS = frozenset({dict, OrderedDict})
_ROW = attrgetter("row")
Leaves = Callable[[Records], "list[Leaf] | None"]


class Flat(NamedTuple):
    """A mapping of names to leaves: its class, the first one's row (the others follow it), and its `_metadata` (None: it has
    none)."""

    kind: type[Any]
    names: list[str]
    first: int
    metadata: Any


class Layout(NamedTuple):
    """What a pickle holds: `tree` has a Flat for each state; `limits` are those that it was read with."""

    tree: Any
    globals: list[Import]
    end: int
    records: Records
    limits: Limits


class _Other(Exception):  # no error: what is not plain is not kept
    pass


class State(NamedTuple):
    """A mapping of many names to nothing but leaves, in lists: going through an OrderedDict of 32,000 takes 1.5 ms."""

    mapping: dict[str, Leaf]
    names: list[str]
    leaves: list[Leaf]


def flat_states(tree: Any) -> list[State]:
    """The states that are the tree itself, or lie directly in it."""
    if type(tree) not in DICTS:
        return []
    values = list(tree.values())
    if set(map(type, values)) == {Leaf}:
        return [State(tree, list(tree), values)] if len(values) >= FEW else []
    parts = [
        State(part, list(part), list(part.values())) for part in values if type(part) in DICTS and len(part) >= FEW
    ]
    return [part for part in parts if set(map(type, part.leaves)) == {Leaf}]


def known(data: bytes, limits: Limits, leaves: Leaves) -> Parsed | None:
    """What a pickle holds that was read before; None where it was not, or its leaves cannot be had."""
    layout = RECENT.find(data)
    if layout is None or layout.limits != limits:
        return None
    found = leaves(layout.records)
    if found is None:
        return None
    return Parsed(_made(layout.tree, found), list(layout.globals), layout.end)


def keep(data: bytes, limits: Limits, parsed: Parsed, states: list[State], table: FileRows) -> None:
    """Keep what a pickle holds, if it is the states (whose leaves are rows of the table, all of them) and plain values."""
    rows: list[Any] = []
    flats = {}
    try:
        for state in states:
            flats[id(state.mapping)] = _flat(state, len(rows))
            rows += map(_ROW, state.leaves)
        if len(set(rows)) == len(rows) == len(table.of) and None not in rows:
            tree = _without_leaves(parsed.value, flats, set(), 0)
            RECENT.keep(data, Layout(tree, parsed.globals, parsed.end, table.records(rows), limits))
    except _Other:
        return


def _flat(state: State, first: int) -> Flat:
    extra = getattr(state.mapping, "__dict__", {})
    if extra.keys() - {"_metadata"} or set(map(type, state.names)) != {str}:
        raise _Other
    metadata = extra.get("_metadata")
    kept = None if metadata is None else _without_leaves(metadata, {}, set(), 0)
    return Flat(type(state.mapping), state.names, first, kept)


def _without_leaves(value: Any, flats: dict[int, Flat], seen: set[int], depth: int) -> Any:
    """A copy of plain values, with the flats in their places; raises _Other where there is more, or a part twice."""
    if type(value) in ATOMS:
        return value
    if id(value) in seen or depth > DEEPEST:
        raise _Other
    seen.add(id(value))
    if id(value) in flats:
        return flats[id(value)]
    if type(value) in DICTS and not getattr(value, "__dict__", None) and ATOMS.issuperset(map(type, value)):
        return type(value)((key, _without_leaves(part, flats, seen, depth + 1)) for key, part in value.items())
    if type(value) in (list, tuple):
        return type(value)(_without_leaves(part, flats, seen, depth + 1) for part in value)
    raise _Other


def _made(value: Any, leaves: list[Leaf]) -> Any:
    """A copy of what `_without_leaves` gave, with the leaves in their places."""
    if type(value) is Flat:
        mapping = value.kind(zip(value.names, leaves[value.first : value.first + len(value.names)]))
        if value.metadata is not None:
            mapping._metadata = _made(value.metadata, leaves)
        return mapping
    if type(value) in DICTS:
        return type(value)((key, _made(part, leaves)) for key, part in value.items())
    return type(value)(_made(part, leaves) for part in value) if type(value) in (list, tuple) else value


RECENT: Recent[Layout] = Recent()
