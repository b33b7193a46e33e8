"""Walking inert trees without recursion: they may be deep, shared and cyclic."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any

from statedict.state import Compound, Leaf, Opaque

from .._limits import Limits

_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_SEQUENCES = frozenset({list, tuple, deque})
_CONTAINERS = _MAPPINGS | _SEQUENCES | {Opaque}


def children(value: Any) -> Iterable[Any]:
    """The values directly inside a value; nothing for one that holds none."""
    kind = type(value)
    if kind in _MAPPINGS:
        extra = getattr(value, "__dict__", None)
        return [*value.values(), *extra.values()] if extra else value.values()
    if kind in _SEQUENCES:
        return value
    if kind is Opaque:
        return [*(value.args or ()), *value.kwargs.values(), value.state, *value.items]
    if (kind is Leaf or kind is Compound) and value.traits.attributes:
        return value.traits.attributes.values()
    return value if isinstance(value, tuple) else ()


def _holds(value: Any) -> bool:
    kind = type(value)
    if kind is Leaf or kind is Compound:
        return bool(value.traits.attributes)
    return kind in _CONTAINERS or isinstance(value, tuple)


def check_depth(value: Any, limits: Limits) -> None:
    """Raise LimitError where values lie deeper in each other than `limits.depth`; a cycle counts once."""
    if not _holds(value):
        return
    depths: dict[int, int] = {}
    path: list[tuple[Any, list[Any]]] = [(value, [])]
    depths[id(value)] = 0
    path = [(value, [child for child in children(value) if _holds(child)])]
    while path:
        parent, waiting = path[-1]
        if waiting:
            child = waiting.pop()
            if id(child) not in depths:
                depths[id(child)] = 0
                path.append((child, [each for each in children(child) if _holds(each)]))
                if len(path) > limits.depth:
                    raise limits.exceeded("depth", f"a nesting of {len(path):,} values")
            elif len(path) + depths[id(child)] >= limits.depth:
                raise limits.exceeded("depth", f"a nesting of {len(path) + depths[id(child)]:,} values")
            else:
                depths[id(parent)] = max(depths[id(parent)], depths[id(child)] + 1)
            continue
        path.pop()
        if path:
            above = id(path[-1][0])
            depths[above] = max(depths[above], depths[id(parent)] + 1)
