"""Copy a tree of state, so that the copy shares nothing with the original.

A tree consists of mappings, lists and tuples with tensors, leaves and any other values. Objects that occur several times,
and tensors that share memory, do so in the copy too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import repeat
from types import MethodType
from typing import Any, NamedTuple

import torch

from statedict.state import Compound, Leaf, StateDict, collector_paused, map_tree, materialize, raw_values

from ..tensors._copy_pairs import ORDINARY
from ..tensors._library import TORCH
from ._copy_tensors import copies
from ._reused_copies import FIXED, Memory, remember


def independent(tree: Any, out: Any = None, *, host: bool = False, verify: bool = True) -> Any:
    """Return a copy of the tree: tensors are copied (`host`: to the CPU), leaves read into fresh memory, other values
    copied deeply.

    Tensors of `out` at the same positions are overwritten if they have the same layout (see `copies`). `verify`: compare
    the checksums of what is read.

    >>> weight = torch.ones(1)
    >>> copied = independent({"a": weight, "b": [weight]})
    >>> copied["a"] is copied["b"][0], copied["a"] is weight
    (True, False)
    """
    with collector_paused():
        return _independent(tree, out, host, verify)


def _independent(tree: Any, out: Any, host: bool, verify: bool) -> Any:
    found = _found(tree, out)
    return _copied(tree, _known(found, _copies(found, out, host), verify))


def take(tree: Any, out: Any = None) -> tuple[Any, Memory | None]:
    """Copy a state to the CPU; return the copy, and memory that can take the next state of the same objects.

    Tensors of `out` are overwritten as by `independent`.
    """
    made = independent(tree, out, host=True)
    return made, remember(tree, made)


def _copies(found: _TreeTensors, out: Any, host: bool) -> list[torch.Tensor]:
    onto = [] if out is None else list(map(found.offered.get, found.live))
    return copies(list(found.live.values()), onto, host=host)


def _known(found: _TreeTensors, made: Sequence[torch.Tensor], verify: bool) -> dict[int, Any]:
    """Return the copies of the tree's tensors, by the id of the original."""
    known: dict[int, Any] = dict(zip(found.live, made))
    known.update(zip(found.unread, materialize(list(found.unread.values()), TORCH, verify=verify)))
    return known


class _TreeTensors(NamedTuple):
    """The tensors of a tree, by id.

    Attributes:
        live: the tensors in memory.
        offered: the value of `out` at the position of each.
        unread: the leaves.
    """

    live: dict[int, torch.Tensor]
    offered: dict[int, Any]
    unread: dict[int, Leaf | Compound]


def _found(tree: Any, out: Any) -> _TreeTensors:
    found = _TreeTensors({}, {}, {})
    stack = [(tree, out)]
    seen: set[int] = set()
    while stack:
        value, other = stack.pop()
        entries = _entries(value)
        if entries is None:
            if isinstance(value, torch.Tensor):
                found.live[id(value)], found.offered[id(value)] = value, other
            elif isinstance(value, (Leaf, Compound)):
                found.unread[id(value)] = value
        elif id(value) not in seen:
            seen.add(id(value))
            values, offered = list(entries.values()), _entries(other)
            others = repeat(None) if offered is None else map(offered.get, entries)
            if {Leaf}.issuperset(map(type, values)):
                found.unread.update(zip(map(id, values), values))
            elif ORDINARY.issuperset(map(type, values)):
                # Thousands of tensors, each of which would cost 10 µs in this loop.
                found.live.update(zip(map(id, values), values))
                if offered is not None:
                    found.offered.update(zip(map(id, values), others))
            else:
                stack.extend(reversed([*zip(values, others)]))
    return found


def _entries(value: Any) -> Mapping[Any, Any] | None:
    """Return the elements of a mapping, list or tuple, by key or index; None for any other value."""
    kind = type(value)
    if kind is dict or kind in ATOMS:
        return value if kind is dict else None
    if isinstance(value, Mapping):
        return raw_values(value)
    return dict(enumerate(value)) if isinstance(value, (list, tuple)) else None


def values_of(tree: Any) -> Iterator[Any]:
    """Yield the values in the tree that are not mappings, lists or tuples."""
    stack = [tree]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        entries = _entries(value)
        if entries is None:
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            if ATOMS.issuperset(map(type, entries.values())):
                yield from entries.values()
            else:
                stack.extend(reversed([*entries.values()]))


def _copied(tree: Any, known: dict[int, Any]) -> Any:
    """Return the tree with the copies that are `known`, by id, and deep copies of all other values."""

    def copy(value: Any) -> Any:
        if id(value) in known:
            return known[id(value)]
        if isinstance(value, StateDict):
            return _copied(value, known)
        return value if type(value) in SHARED else deepcopy(value, known)

    if isinstance(tree, StateDict):
        metadata = None if tree._metadata is None else map_tree(tree._metadata, deepcopy)
        return StateDict.adopt(map_tree(dict(raw_values(tree)), copy, known), metadata)
    return map_tree(tree, copy, known)


# The most frequent types of values without elements: testing for a Mapping takes longer than anything else here.
ATOMS = frozenset({torch.Tensor, torch.nn.Parameter, Leaf, int, float, bool, str, type(None)})
# `deepcopy` returns these themselves, which takes ten times as long; except bound methods: it would copy their owner too,
# such as a scheduler with its optimizer and all parameters.
SHARED = {MethodType, *FIXED}
