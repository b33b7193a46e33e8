"""List every tensor of a tree with its path. Cycles and shared parts are visited once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from statedict.state import Compound, Leaf, Opaque, raw_values

from .._pickle import Pair, TypedStorage
from ..storages._describe import step_of

Tensor = Leaf | Compound


def tensors(tree: object) -> Iterator[tuple[str, Tensor]]:
    """Yield the leaves and compounds of an inert tree in order, each with its path (steps joined by `/`).

    >>> list(tensors({"a": [1, 2]}))
    []
    """
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", tree)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, (Leaf, Compound)):
            yield path, value
        elif isinstance(value, TypedStorage):
            yield path, value.leaf()
        elif not isinstance(value, (str, bytes, int, float)) and id(value) not in seen:
            seen.add(id(value))
            inside = [(f"{path}/{step_of(key)}" if path else step_of(key), part) for key, part in _parts(value)]
            waiting.extend(reversed(inside))


def leaves(tree: object) -> Iterator[tuple[str, Leaf]]:
    """Yield the same as `tensors`, but each compound as its separate leaves."""
    for path, value in tensors(tree):
        if isinstance(value, Leaf):
            yield path, value
        else:
            for role, part in value.parts.items():
                yield f"{path}/{role}", part


def _parts(value: object) -> Iterable[tuple[Any, object]]:
    if isinstance(value, Mapping):
        return raw_values(value).items()
    if isinstance(value, Pair):
        return [(value.key, value.value)]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return enumerate(value)
    if isinstance(value, Opaque):
        whole = [*value.attributes().items()] if value.state is not None else []
        state = [] if whole else [("state", value.state)]
        return [*enumerate(value.args or ()), *value.kwargs.items(), *whole, *state, *enumerate(value.items)]
    return ()
