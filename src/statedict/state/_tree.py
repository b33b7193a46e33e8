"""Trees of values: the object that a file holds, with its tensors among dicts, lists and tuples.

Walks are iterative and remember what they have seen, so that deep nesting, shared values and cycles cost what they hold and
no more. A mapped tree shares its parts exactly where the original did.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from ..errors import FormatError
from ._absent import Absent
from ._leaf import Leaf
from ._library import library_of
from ._revive import Maker, fill, remade
from ._statedict import StateDict, raw_values
from ._values import Compound, Opaque

Replace = Callable[[Any], Any]
# How the value that an Opaque describes is made, if it is to be made.
Remake = Callable[[Opaque], Maker | None]
# From the id of an object to what it becomes.
Mapped = Callable[[int], Any]


def map_tree(
    tree: Any,
    replace: Replace,
    known: Mapping[int, Any] = MappingProxyType({}),
    remake: Remake = lambda value: None,
) -> Any:
    """The same tree with every value that is not a container given to `replace`, each object once.

    `known`: what objects become whose ids it has; they are not given to `replace`. `remake` says how the value that an
    Opaque describes is made (see `maker_of`); where it gives None, the Opaque stays one.

    Containers are copied: dict and its kinds and StateDicts (with `_metadata`), list, tuple, set, frozenset, deque, and
    Opaque values. Raises FormatError where a value cannot be made of the parts that its Opaque has.

    >>> map_tree({"a": [1, (2, 3)]}, lambda value: value * 10)
    {'a': [10, (20, 30)]}
    """
    return _Walk(replace, known, remake).of(tree)


def tensors_of(tree: Any, *others: type) -> list[Any]:
    """Every leaf, compound and array in the tree, and every value of the types in `others`; each object once, in order."""
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
    """Every value in the tree once, containers included; keys are not looked at."""
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


def holds(tree: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether `fits` is true of any value in the tree that is no container; none is looked at after the first that fits."""
    stack, seen = [tree], set[int]()
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind not in _OPEN and kind not in _FIXED:
            if fits(value):
                return True
        elif id(value) not in seen:
            seen.add(id(value))
            stack.extend(_OPEN[kind].children(value) if kind in _OPEN else value)
    return False


class _Walk:
    """One walk over a tree, depth first. A container is filled when what it holds is made, so that a value which is made of
    a container finds it complete (unless it lies in itself)."""

    def __init__(self, replace: Replace, known: Mapping[int, Any], remake: Remake) -> None:
        self.replace, self.remake = replace, remake
        # What each object becomes, by id. Ids stay valid because their objects do: in the tree, or in `alive`.
        self.built: dict[int, Any] = {**known}
        self.alive: list[Any] = []

    def of(self, tree: Any) -> Any:
        built, replace = self.built, self.replace
        # What is under way: its children that were not looked at yet, and what is done after them.
        stack: list[tuple[Iterator[Any], Callable[[], Any]]] = [(iter((tree,)), lambda: None)]
        while stack:
            children, finish = stack[-1]
            for value in children:
                if id(value) in built:
                    continue
                kind = type(value)
                if kind in _OPEN:
                    inside, then = self._opened(value)
                    # Thousands of small dicts whose values are known: the state of an optimizer.
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
        # A tuple that holds itself, by way of a list, has been made further in.
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
    """A copy of a tuple, set or frozenset."""
    try:
        return type(old)(map(mapped, map(id, old)))
    except TypeError as error:
        raise _unhashable(f"a {type(old).__name__}", error) from None


def _unhashable(where: str, error: TypeError) -> FormatError:
    return FormatError(
        f"{where} holds a tensor as a key or an item: {error}",
        hint='PyTorch\'s tensors can be: load it with backend="torch"',
    )


class _Open:
    """How a kind of container that can hold itself is copied: an empty one first, its children, then the filling."""

    def __init__(
        self,
        empty: Callable[[Any], Any],
        children: Callable[[Any], Iterable[Any]],
        fill: Callable[[Any, Any, Mapped], None],
    ) -> None:
        self.empty, self.children, self.fill = empty, children, fill


def _odd_keys(values: Mapping[Any, Any]) -> Iterable[Any]:
    """The keys, where any is something else than text or a plain value, so that they are copied too."""
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
        # 0.1 µs a value; one at a time it takes 0.4.
        new.update(zip(keys, map(mapped, map(id, values.values()))))
    except TypeError as error:
        raise _unhashable(f"a {type(old).__name__}", error) from None
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
_LIST = _Open(lambda old: type(old)(), iter, _fill_list)
_FIXED = {tuple, set, frozenset}
_TENSORS = {Leaf, Absent, Compound}
_OPEN: dict[type, _Open] = {
    dict: _DICT,
    OrderedDict: _MAPPING,
    Counter: _COUNTER,
    defaultdict: _Open(lambda old: defaultdict(old.default_factory), _mapping_children, _fill_mapping),
    StateDict: _Open(_empty_state, _mapping_children, _fill_mapping),
    list: _LIST,
    deque: _Open(lambda old: deque(maxlen=old.maxlen), iter, _fill_list),
    Opaque: _Open(
        lambda old: Opaque(old.module, old.name),
        lambda old: (old.args, old.kwargs, old.state, old.items),
        _fill_opaque,
    ),
}
