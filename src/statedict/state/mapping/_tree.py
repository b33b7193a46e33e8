"""Trees of values: the object in a file, with tensors inside dicts, lists and tuples.

Walks are iterative and visit each object once, so deep nesting, shared values and cycles take linear time. A mapped tree
shares its parts in the same way as the original.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

from ...errors import FormatError
from .._arguments import a
from ..regions._parts import Parts
from ..tensors._absent import Absent
from ..tensors._leaf import Leaf
from ..tensors._library import library_of
from ..tensors._values import Compound, Opaque
from ._revive import Maker, fill, remade
from ._statedict import StateDict, raw_values

Replace = Callable[[Any], Any]
# Returns how to make the value that an Opaque describes, or None to keep the Opaque.
Remake = Callable[[Opaque], Maker | None]
# From the id of an object to its replacement.
Mapped = Callable[[int], Any]


def map_tree(
    tree: Any,
    replace: Replace,
    known: Mapping[int, Any] = MappingProxyType({}),
    remake: Remake = lambda value: None,
) -> Any:
    """Return a copy of the tree with every value that is not a container replaced by `replace`, called once per object.

    `known`: replacements by the ids of objects, for which `replace` is not called. `remake` returns how to make the value
    that an Opaque describes (see `maker_of`); if it returns None, the Opaque is kept.

    Containers are copied: dict and its subclasses, StateDict (with `_metadata`), list, tuple, set, frozenset, deque, and
    Opaque. Raises FormatError if a value cannot be made from the parts of its Opaque.

    >>> map_tree({"a": [1, (2, 3)]}, lambda value: value * 10)
    {'a': [10, (20, 30)]}
    """
    return _Walk(replace, known, remake).of(tree)


def tensors_of(tree: Any, *others: type) -> list[Any]:
    """Return all leaves, compounds and arrays in the tree, and values of the types `others`; each object once, in order."""
    if type(tree) is dict and {Leaf}.issuperset(map(type, tree.values())):
        return list(dict.fromkeys(tree.values()))
    found: list[Any] = []
    seen: set[int] = set()
    stack: list[Iterator[Any]] = [iter((tree,))]
    while stack:
        for value in stack[-1]:
            if id(value) in seen:
                continue
            seen.add(id(value))
            kind = type(value)
            if kind in _OPEN or kind in _FIXED:
                stack.append(iter(_OPEN[kind].children(value) if kind in _OPEN else value))
                break
            if kind in _TENSORS or kind in others or library_of(value) is not None:
                found.append(value)
        else:
            stack.pop()
    return found


def every(tree: Any) -> Iterator[Any]:
    """Iterate over all values in the tree, including containers, each once; keys are skipped."""
    stack, seen = [tree], set[int]()
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        kind = type(value)
        if kind in _OPEN or kind in _FIXED:
            stack.extend(_OPEN[kind].children(value) if kind in _OPEN else value)


def one_of_each_type(tree: Any) -> Iterator[Any]:
    """Yield a value of each type in the tree, including containers and unusual keys; each when it is found.

    Whether a tree of many small dicts needs a walk at all is known in a tenth of the time that the walk takes.

    >>> set(map(type, one_of_each_type({"a": [1, 2.0, 3]}))) == {dict, list, int, float}
    True
    """
    kinds, seen = set[type](), set[int]()
    level: list[Any] = [tree]
    while level:
        found = set(map(type, level))
        for kind in found - kinds:
            kinds.add(kind)
            yield next(value for value in level if type(value) is kind)
        if found.isdisjoint(_CONTAINERS):
            return
        inside = {id(value): value for value in level if type(value) in _CONTAINERS and id(value) not in seen}
        seen.update(inside)
        parts = (_OPEN[type(value)].children(value) if type(value) in _OPEN else value for value in inside.values())
        level = list(chain.from_iterable(parts))


class _Walk:
    """One depth-first walk over a tree. A container is filled after its content was made, so that a value made from a
    container finds it complete (except in a cycle)."""

    def __init__(self, replace: Replace, known: Mapping[int, Any], remake: Remake) -> None:
        self.replace, self.remake = replace, remake
        # The replacement of each object, by id. The ids stay valid: the tree, or `alive`, keeps the objects alive.
        self.built: dict[int, Any] = {**known}
        self.alive: list[Any] = []

    def of(self, tree: Any) -> Any:
        built, replace = self.built, self.replace
        # For each open container: its remaining children, and what to do after them.
        stack: list[tuple[Iterator[Any], Callable[[], Any]]] = [(iter((tree,)), lambda: None)]
        while stack:
            children, finish = stack[-1]
            for value in children:
                if id(value) in built:
                    continue
                kind = type(value)
                if kind in _OPEN:
                    inside, then = self._opened(value)
                    # A shortcut for thousands of small dicts whose values are known: the state of an optimizer.
                    more = then() if all(map(built.__contains__, map(id, inside))) else (iter(inside), then)
                    if more is None:
                        continue
                    stack.append(more)
                    break
                if kind in _FIXED:
                    stack.append((iter(value), partial(self._fix, value)))
                    break
                built[id(value)] = replace(value)
            else:
                stack.pop()
                more = finish()
                if more is not None:
                    stack.append(more)
        return built[id(tree)]

    def _opened(self, value: Any) -> tuple[list[Any], Callable[[], Any]]:
        maker = self.remake(value) if type(value) is Opaque else None
        if maker is not None:
            return [value.args, value.kwargs], partial(self._make, value, maker)
        kind = _OPEN[type(value)]
        new = self.built[id(value)] = kind.empty(value)
        inside = list(kind.children(value))
        self.alive.append(inside)
        return inside, partial(kind.fill, new, value, self.built.__getitem__)

    def _fix(self, value: Any) -> None:
        # A tuple that contains itself (through a list) was already made.
        if id(value) not in self.built:
            self.built[id(value)] = _remade(value, self.built.__getitem__)

    def _make(self, value: Opaque, maker: Maker) -> tuple[Iterator[Any], Callable[[], Any]] | None:
        if id(value) in self.built:
            return None
        mapped = self.built.__getitem__
        made = self.built[id(value)] = remade(value, maker, mapped(id(value.args)), mapped(id(value.kwargs)))
        return iter((value.state, value.items)), lambda: fill(
            value, maker, made, mapped(id(value.state)), mapped(id(value.items))
        )


def _remade(old: Any, mapped: Mapped) -> Any:
    """Copy a tuple, set or frozenset."""
    try:
        return type(old)(map(mapped, map(id, old)))
    except TypeError as error:
        raise _unhashable(a(old), error) from None


def _unhashable(where: str, error: TypeError) -> FormatError:
    return FormatError(
        f"{where} has an array as a key or an item: {error}",
        hint='PyTorch\'s tensors are hashable: load the file with backend="torch"',
    )


class _Open:
    """How to copy a container that can contain itself: make an empty one, copy its children, then fill it."""

    def __init__(
        self,
        empty: Callable[[Any], Any],
        children: Callable[[Any], Iterable[Any]],
        fill: Callable[[Any, Any, Mapped], None],
    ) -> None:
        self.empty, self.children, self.fill = empty, children, fill


def _odd_keys(values: Mapping[Any, Any]) -> Iterable[Any]:
    """Return the keys if one of them is not a plain value, so that they are copied too."""
    return () if _PLAIN_KEYS.issuperset(map(type, values)) else values


def _mapping_children(value: Mapping[Any, Any]) -> Iterable[Any]:
    metadata = getattr(value, "_metadata", None)
    values = raw_values(value)
    keys = _odd_keys(values)
    if not keys and metadata is None:
        return values.values()
    return [*keys, *values.values(), *([] if metadata is None else [metadata])]


def _fill_mapping(new: Any, old: Any, mapped: Mapped) -> None:
    values = raw_values(old)
    keys: Iterable[Any] = values if not _odd_keys(values) else map(mapped, map(id, values))
    try:
        new.update(zip(keys, map(mapped, map(id, values.values()))))
    except TypeError as error:
        raise _unhashable(a(old), error) from None
    metadata = getattr(old, "_metadata", None)
    if metadata is not None:
        new._metadata = mapped(id(metadata))


def _empty_state(old: StateDict) -> StateDict:
    new = StateDict(backend=old._backend)
    new.texts = old.texts
    return new


def _fill_list(new: Any, old: Any, mapped: Mapped) -> None:
    new.extend(map(mapped, map(id, old)))


def _fill_opaque(new: Opaque, old: Opaque, mapped: Mapped) -> None:
    new.args, new.kwargs = mapped(id(old.args)), mapped(id(old.kwargs))
    new.state, new.items = mapped(id(old.state)), mapped(id(old.items))


_PLAIN_KEYS = {str, int, float, bool, bytes, type(None)}
_DICT = _Open(lambda old: {}, _mapping_children, _fill_mapping)
_MAPPING = _Open(lambda old: type(old)(), _mapping_children, _fill_mapping)
# Counter's own `update` would add the counts.
_COUNTER = _Open(
    lambda old: Counter(),
    _mapping_children,
    lambda new, old, mapped: dict.update(new, zip(old, map(mapped, map(id, old.values())))),
)
_LIST = _Open(lambda old: type(old)(), lambda old: old, _fill_list)
_FIXED = {tuple, set, frozenset}
_TENSORS = {Leaf, Absent, Compound, Parts}
_OPEN: dict[type, _Open] = {
    dict: _DICT,
    OrderedDict: _MAPPING,
    Counter: _COUNTER,
    defaultdict: _Open(lambda old: defaultdict(old.default_factory), _mapping_children, _fill_mapping),
    StateDict: _Open(_empty_state, _mapping_children, _fill_mapping),
    list: _LIST,
    deque: _Open(lambda old: deque(maxlen=old.maxlen), lambda old: old, _fill_list),
    Opaque: _Open(
        lambda old: Opaque(old.module, old.name),
        lambda old: (old.args, old.kwargs, old.state, old.items),
        _fill_opaque,
    ),
}
_CONTAINERS = _OPEN.keys() | _FIXED
