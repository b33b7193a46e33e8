"""The part of a state that lies below one module: what loaders and hooks are given.

PyTorch scans all of a parent's names once for each child, which is quadratic: two minutes for 16,000 children. Here one
pass deals the names out by their next component.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Local = dict[str, Any]


def deal(local: Mapping[str, Any], prefix: str) -> dict[str, Local]:
    """The names below `prefix`, grouped by the component that follows it; names without a further one are left out."""
    dealt: dict[str, Local] = {}
    size = len(prefix)
    group, dealing = None, ""
    for key, value in raw_items(local):
        if not key.startswith(prefix):
            continue
        end = key.find(".", size)
        if end < 0:
            continue
        # Names come in runs, so the group is looked up once a run: 14 ms for 32,000 names instead of 19.
        component = key[size:end]
        if group is None or component != dealing:
            group = dealt.setdefault(component, {})
            dealing = component
        group[key] = value
    return dealt


class Below:
    """The states of a module's children.

    A child's name may hold dots (PyTorch refuses them in `add_module`, but not in `setattr`); its names are then found
    by dealing again below each component.
    """

    def __init__(self, local: Mapping[str, Any], prefix: str) -> None:
        self._dealt = {prefix: deal(local, prefix)}

    def of(self, prefix: str, name: str) -> Local:
        """The names that start with `prefix + name + "."`, in order."""
        head, dot, rest = name.partition(".")
        group = self._dealt[prefix].get(head, {})
        if not dot:
            return group
        inner = f"{prefix}{head}."
        if inner not in self._dealt:
            self._dealt[inner] = deal(group, inner)
        # Another child may be given the same names.
        return dict(self.of(inner, rest))


class Watched(OrderedDict[str, Any]):
    """A local state whose values are seen to as they are looked at: `look(value)` gives what the reader gets.

    So a loader of a module gets arrays for leaves that were not read yet, and the engine knows what a loader may change.
    """

    _look: Callable[[Any], Any]

    def __init__(self, values: Mapping[str, Any], look: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        # `|` makes a copy of a mapping by calling its class with it.
        if look is None and isinstance(values, Watched):
            look = values._look
        for key, value in raw_items(values):
            super().__setitem__(key, value)
        self._look = look or (lambda value: value)

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        seen = self._look(value)
        if seen is not value:
            super().__setitem__(key, seen)
        return seen

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401  # this is the `get`

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self[key]
        return super().pop(key, *default)

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        key = next(reversed(self) if last else iter(self), None)
        return super().popitem() if key is None else (key, self.pop(key))

    def setdefault(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else super().setdefault(key, default)

    def values(self) -> Any:
        return [self[key] for key in self]

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def copy(self) -> Any:
        new = Watched(self, self._look)
        vars(new).update(vars(self))
        return new

    def raw(self) -> Iterator[tuple[str, Any]]:
        return iter(zip(list(self), OrderedDict.values(self)))


def raw_items(local: Mapping[str, Any]) -> Any:
    """The items as they lie in it, unread."""
    return local.raw() if isinstance(local, Watched) else local.items()


def raw_value(local: Mapping[str, Any], key: str) -> Any:
    """One value as it lies in it, unread."""
    return OrderedDict.__getitem__(local, key) if isinstance(local, Watched) else local[key]
