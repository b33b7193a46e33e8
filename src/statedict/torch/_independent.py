"""A tree of state, copied so that it shares nothing with the original.

In goes a tree of mappings, lists and tuples with tensors (read or not) and any other values; out comes the same tree with
copies. The rule guarded: what was one object, or one memory, before is one after, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from types import MethodType
from typing import Any

import torch

from statedict.state import Compound, Leaf, StateDict, collector_paused, map_tree, materialize, raw_values

from ._copies import PLAIN_TYPES, copies
from ._library import TORCH

Path = tuple[Any, ...]


def independent(tree: Any, out: Any = None, *, host: bool = False, verify: bool = True) -> Any:
    """The same tree with tensors copied (`host`: to the CPU), leaves read into fresh memory, and the rest copied deeply.

    Tensors of `out` at the same places are overwritten where they are laid out alike (see `copies`). `verify` settles
    the checksums of what is read before anything is made.

    >>> weight = torch.ones(1)
    >>> copied = independent({"a": weight, "b": [weight]})
    >>> copied["a"] is copied["b"][0], copied["a"] is weight
    (True, False)
    """
    with collector_paused():
        return _independent(tree, out, host, verify)


def _independent(tree: Any, out: Any, host: bool, verify: bool) -> Any:
    if isinstance(tree, StateDict) and set(map(type, raw_values(tree).values())) <= PLAIN_TYPES:
        return _flat(tree, out, host)
    live: dict[int, torch.Tensor] = {}
    unread: dict[int, Leaf | Compound] = {}
    for value in values_of(tree):
        if isinstance(value, torch.Tensor):
            live[id(value)] = value
        elif isinstance(value, (Leaf, Compound)):
            unread[id(value)] = value
    known: dict[int, Any] = dict(zip(live, copies(list(live.values()), _onto(live, tree, out), host=host)))
    known.update(zip(unread, materialize(list(unread.values()), TORCH, verify=verify)))
    return _copied(tree, known)


def _flat(state: StateDict, out: Any, host: bool) -> StateDict:
    """The copy of what nearly all models have: names and plain tensors. 32,000 of them take half the time of any tree."""
    values = raw_values(state)
    live = {id(tensor): tensor for tensor in values.values()}
    offered = raw_values(out) if isinstance(out, StateDict) else {}
    onto: dict[int, Any] = {}
    if offered:
        onto = {id(tensor): offered.get(name) for name, tensor in values.items()}
    made = copies(list(live.values()), [_tensor(value) for value in onto.values()], host=host)
    known: dict[int, Any] = dict(zip(live, made))
    metadata = None if state._metadata is None else map_tree(state._metadata, deepcopy)
    return StateDict.adopt({name: known[id(tensor)] for name, tensor in values.items()}, metadata)


def _tensor(value: Any) -> torch.Tensor | None:
    return value if isinstance(value, torch.Tensor) else None


def values_of(tree: Any) -> Iterator[Any]:
    """Every value in the tree's mappings, lists and tuples that is none of these."""
    stack = [tree]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if not isinstance(value, (dict, list, tuple, Mapping)):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            inside = raw_values(value).values() if isinstance(value, Mapping) else value
            stack.extend(reversed(list(inside)))


def _onto(live: Mapping[int, torch.Tensor], tree: Any, out: Any) -> list[torch.Tensor | None]:
    """What `out` has in the place of each tensor of the tree; nothing where there is no `out`."""
    if out is None:
        return []
    offered = dict(_placed_tensors(out))
    place = {id(tensor): path for path, tensor in _placed_tensors(tree)}
    return [offered.get(place[key]) for key in live]


def _placed_tensors(tree: Any) -> Iterator[tuple[Path, torch.Tensor]]:
    """Every tensor in the tree with the keys that lead to it."""
    stack: list[tuple[Path, Any]] = [((), tree)]
    seen: set[int] = set()
    while stack:
        path, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield path, value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            entries = raw_values(value).items() if isinstance(value, Mapping) else enumerate(value)
            stack.extend(((*path, key), entry) for key, entry in entries)


def _copied(tree: Any, known: dict[int, Any]) -> Any:
    """The tree with what is `known` (by id) in place, and a deep copy of everything else."""

    def copy(value: Any) -> Any:
        if id(value) in known:
            return known[id(value)]
        if isinstance(value, StateDict):
            return _copied(value, known)
        # A bound method would bring a copy of its owner, and with it of a scheduler's optimizer and all its parameters.
        return value if isinstance(value, MethodType) else deepcopy(value, known)

    if isinstance(tree, StateDict):
        metadata = None if tree._metadata is None else map_tree(tree._metadata, copy)
        values = raw_values(tree)
        # Nearly all of a model's values are known by now; only the others are worth a walk.
        others = map_tree({name: value for name, value in values.items() if id(value) not in known}, copy)
        return StateDict.adopt({n: others[n] if n in others else known[id(v)] for n, v in values.items()}, metadata)
    return map_tree(tree, copy)
