"""A tree of state, copied so that it shares nothing with the original.

In goes a tree of mappings, lists and tuples with tensors (read or not) and any other values; out comes the same tree with
copies. The rule guarded: what was one object, or one memory, before is one after, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from statedict.state import Compound, Leaf, StateDict, map_tree, materialize, raw_values

from ._copies import copies
from ._library import TORCH

Path = tuple[Any, ...]


def independent(tree: Any, out: Any = None, *, host: bool = False) -> Any:
    """The same tree with tensors copied (`host`: to the CPU), leaves read into fresh memory, and the rest copied deeply.

    Tensors of `out` at the same places are overwritten where they are laid out alike (see `copies`).

    >>> weight = torch.ones(1)
    >>> copied = independent({"a": weight, "b": [weight]})
    >>> copied["a"] is copied["b"][0], copied["a"] is weight
    (True, False)
    """
    found = {id(value): (path, value) for path, value in reversed(list(_values(tree)))}
    live = {key: (path, value) for key, (path, value) in found.items() if isinstance(value, torch.Tensor)}
    offered = {p: v for p, v in _values(out) if isinstance(v, torch.Tensor)} if out is not None else {}
    onto = [offered.get(path) for path, _ in live.values()] if offered else []
    made = copies([tensor for _, tensor in live.values()], onto, host=host)
    unread = {key: value for key, (_, value) in found.items() if isinstance(value, (Leaf, Compound))}
    known: dict[int, Any] = dict(zip(live, made))
    known.update(zip(unread, materialize(list(unread.values()), TORCH)))
    return _copied(tree, known)


def _values(tree: Any) -> Iterator[tuple[Path, Any]]:
    """Every value in the tree's mappings, lists and tuples that is none of these, with the keys that lead to it."""
    stack: list[tuple[Path, Any]] = [((), tree)]
    seen: set[int] = set()
    while stack:
        path, value = stack.pop()
        if not isinstance(value, (Mapping, list, tuple)):
            yield path, value
        elif id(value) not in seen:
            seen.add(id(value))
            entries = raw_values(value).items() if isinstance(value, Mapping) else enumerate(value)
            stack.extend([((*path, key), entry) for key, entry in entries][::-1])


def _copied(tree: Any, known: dict[int, Any]) -> Any:
    """The tree with what is `known` (by id) in place, and a deep copy of everything else."""

    def copy(value: Any) -> Any:
        if id(value) in known:
            return known[id(value)]
        return _copied(value, known) if isinstance(value, StateDict) else deepcopy(value, known)

    if isinstance(tree, StateDict):
        metadata = None if tree._metadata is None else map_tree(tree._metadata, copy)
        return StateDict.adopt(map_tree(dict(raw_values(tree)), copy), metadata)
    return map_tree(tree, copy)
