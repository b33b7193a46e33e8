"""Trees of values: the object that a file holds, with its tensors among dicts, lists and tuples.

Walks are iterative and remember what they have seen, so that deep nesting, shared values and cycles cost what they hold and
no more. A mapped tree shares its parts exactly where the original did.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._leaf import Leaf
from ._library import library_of
from ._statedict import StateDict, raw_values
from ._values import Compound, Opaque

Replace = Callable[[Any], Any]


def map_tree(tree: Any, replace: Replace) -> Any:
    """The same tree with every value that is no container given to `replace`, each object once.

    Containers are copied: dict and its kinds and StateDicts (with `_metadata`), list, tuple, set, frozenset, deque, and
    Opaque values.

    >>> map_tree({"a": [1, (2, 3)]}, lambda value: value * 10)
    {'a': [10, (20, 30)]}
    """
    built: dict[int, Any] = {}
    alive: list[Any] = []  # ids in `built` stay valid because their objects do
    fill: list[Any] = []
    stack: list[tuple[Any, bool]] = [(tree, False)]
    while stack:
        value, children_done = stack.pop()
        if id(value) in built:
            continue
        alive.append(value)
        kind = type(value)
        if kind in _FIXED:
            if children_done:
                built[id(value)] = kind(built[id(child)] for child in value)
            else:
                stack.append((value, True))
                stack.extend((child, False) for child in reversed(tuple(value)))
        elif kind in _OPEN:
            built[id(value)] = _OPEN[kind].empty(value)
            fill.append(value)
            children = list(_OPEN[kind].children(value))
            alive.append(children)
            stack.extend((child, False) for child in reversed(children))
        else:
            built[id(value)] = replace(value)
    for value in fill:
        _OPEN[type(value)].fill(built[id(value)], value, lambda child: built[id(child)])
    return built[id(tree)]


def tensors_of(tree: Any) -> list[Any]:
    """Every leaf, compound and array in the tree, each object once, in order."""
    found: list[Any] = []

    def note(value: Any) -> Any:
        if isinstance(value, (Leaf, Compound)) or library_of(value) is not None:
            found.append(value)
        return value

    map_tree(tree, note)
    return found


class _Open:
    """How a kind of container that can hold itself is copied: an empty one first, its children, then the filling."""

    def __init__(
        self,
        empty: Callable[[Any], Any],
        children: Callable[[Any], Iterable[Any]],
        fill: Callable[[Any, Any, Replace], None],
    ) -> None:
        self.empty, self.children, self.fill = empty, children, fill


def _mapping_children(value: Mapping[Any, Any]) -> Iterator[Any]:
    yield from raw_values(value).values()
    metadata = getattr(value, "_metadata", None)
    if metadata is not None:
        yield metadata


def _fill_mapping(new: Any, old: Any, mapped: Replace) -> None:
    for key, value in raw_values(old).items():
        new[key] = mapped(value)
    metadata = getattr(old, "_metadata", None)
    if metadata is not None:
        new._metadata = mapped(metadata)


def _fill_opaque(new: Opaque, old: Opaque, mapped: Replace) -> None:
    new.args, new.kwargs = mapped(old.args), mapped(old.kwargs)
    new.state, new.items = mapped(old.state), mapped(old.items)


_MAPPING = _Open(lambda old: type(old)(), _mapping_children, _fill_mapping)
_LIST = _Open(lambda old: type(old)(), iter, lambda new, old, mapped: new.extend(map(mapped, old)))
_FIXED = {tuple, set, frozenset}
_OPEN: dict[type, _Open] = {
    dict: _MAPPING,
    OrderedDict: _MAPPING,
    defaultdict: _Open(lambda old: defaultdict(old.default_factory), _mapping_children, _fill_mapping),
    StateDict: _Open(lambda old: StateDict(backend=old._backend), _mapping_children, _fill_mapping),
    list: _LIST,
    deque: _Open(lambda old: deque(maxlen=old.maxlen), iter, lambda new, old, mapped: new.extend(map(mapped, old))),
    Opaque: _Open(
        lambda old: Opaque(old.module, old.name),
        lambda old: (old.args, old.kwargs, old.state, old.items),
        _fill_opaque,
    ),
}
