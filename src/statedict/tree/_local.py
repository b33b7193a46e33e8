"""The part of a state that belongs to one module: the argument of loaders and hooks.

PyTorch filters all names of the parent once for each child, which is quadratic.
Here one pass groups the names by their next component.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Local = dict[str, Any]


def grouped(local: Mapping[str, Any], prefix: str) -> dict[str, Local]:
    """The names below `prefix`, grouped by their next component; names without a further component are omitted."""
    groups: dict[str, Local] = {}
    size = len(prefix)
    group, current = None, ""
    for key, value in raw_items(local):
        if not key.startswith(prefix):
            continue
        end = key.find(".", size)
        if end < 0:
            continue
        # Names of one module are consecutive, so the group is looked up once per run.
        component = key[size:end]
        if group is None or component != current:
            group = groups.setdefault(component, {})
            current = component
        group[key] = value
    return groups


class Below:
    """The local states of a module's children.

    A child's name may contain dots (PyTorch rejects them in `add_module`, but not in `setattr`); its names are then found by
    grouping again below each component.
    """

    def __init__(self, local: Mapping[str, Any], prefix: str) -> None:
        self._groups = {prefix: grouped(local, prefix)}

    def of(self, prefix: str, name: str) -> Local:
        """The entries whose names start with `prefix + name + "."`, in order."""
        head, dot, rest = name.partition(".")
        group = self._groups[prefix].get(head, {})
        if not dot:
            return group
        inner = f"{prefix}{head}."
        if inner not in self._groups:
            self._groups[inner] = grouped(group, inner)
        # A copy: another child may receive the same entries.
        return dict(self.of(inner, rest))


class Watched(OrderedDict[str, Any]):
    """A local state that calls `look(value)` for each value that is accessed, and returns its result.

    A loader thus receives arrays for unread leaves, and the engine knows what the loader may change.
    """

    _look: Callable[[Any], Any]

    def __init__(self, values: Mapping[str, Any], look: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        # `|` copies a mapping by calling its class with it.
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
    """The items, without reading unread leaves."""
    return local.raw() if isinstance(local, Watched) else local.items()


def raw_value(local: Mapping[str, Any], key: str) -> Any:
    """One value, without reading an unread leaf."""
    return OrderedDict.__getitem__(local, key) if isinstance(local, Watched) else local[key]
