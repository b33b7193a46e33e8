"""Walk inert trees, which may be deep, shared and cyclic, without recursion."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from typing import Any

from statedict.state import Compound, DType, Leaf, Opaque

from .._limits import Limits

_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter})
_SEQUENCES = frozenset({list, tuple, deque})
_PLAIN = frozenset({dict, list, tuple})

_ATOMS: frozenset[type] = frozenset({str, int, float, bool, bytes, type(None), DType})


def children(value: Any) -> Sequence[Any]:
    """Return the values directly inside a value; an empty sequence if it does not contain any."""
    kind = type(value)
    if kind is list or kind is tuple:
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return list(value.values())
    if kind in _MAPPINGS:
        return [*value.values(), *getattr(value, "__dict__", {}).values()]
    if kind is Opaque:
        return [*(value.args or ()), *value.kwargs.values(), value.state, *value.items]
    if kind is Leaf or kind is Compound:
        return [*(value.traits.attributes or {}).values()]
    return [*value] if kind in _SEQUENCES or isinstance(value, tuple) else []


def path_to(tree: Any, wanted: object) -> str | None:
    """Return the keys that lead to an object in a live tree, through attributes too, joined by `/`; None if it is not
    found.
    """
    waiting: deque[tuple[str, Any]] = deque([("", tree)])
    seen: set[int] = set()
    while waiting:
        path, value = waiting.popleft()
        if value is wanted:
            return path
        if id(value) in seen or isinstance(value, (str, bytes, int, float)):
            continue
        seen.add(id(value))
        inside = getattr(value, "__dict__", None)
        parts = [*inside.items()] if type(inside) is dict else []
        if isinstance(value, dict):
            parts += value.items()
        elif isinstance(value, (list, tuple, deque)):
            parts += enumerate(value)
        waiting.extend((f"{path}/{key}" if path else str(key), part) for key, part in parts)
    return None


def _containers(value: Any, plain: frozenset[type]) -> list[Any]:
    inside = children(value)
    # One pass in C shows that nothing is nested here: the usual case for a large state dict.
    return [] if plain.issuperset(map(type, inside)) else [each for each in inside if type(each) not in plain]


def check_depth(value: Any, limit: int, *, attributes: bool = True) -> None:
    """Raise LimitError if more than `limit` values are nested in each other; a cycle counts once.

    `attributes` says whether any tensor has attributes.
    """
    plain: frozenset[type] = _ATOMS if attributes else _ATOMS | {Leaf, Compound}
    depths: dict[int, int] = {id(value): 0}
    path: list[tuple[Any, list[Any]]] = [(value, _containers(value, plain))]
    while path:
        parent, waiting = path[-1]
        if not waiting:
            path.pop()
            if path:
                above = id(path[-1][0])
                depths[above] = max(depths[above], depths[id(parent)] + 1)
            continue
        child = waiting.pop()
        # Empty containers are not remembered: that would triple the memory used for two million of them, which take two
        # megabytes of pickle.
        below = 0 if type(child) in _PLAIN and not child else depths.get(id(child))
        inside: list[Any] = []
        if below is None:
            depths[id(child)] = 0
            inside = _containers(child, plain)
            below = None if inside else 0
        if len(path) + (below or 0) >= limit:
            raise Limits(depth=limit).exceeded("depth", "a nesting of values")
        if below is None:
            path.append((child, inside))
        else:
            depths[id(parent)] = max(depths[id(parent)], below + 1)
