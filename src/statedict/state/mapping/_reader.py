"""Read the tensors of a state when their names are looked up.

Tensors in the same storage are read together, so that ties are preserved, and so are those that the caller will probably
ask for next (`_read_ahead`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from threading import Lock
from typing import Any

from ..tensors._leaf import Leaf
from ..tensors._library import library
from ..tensors._materialize import materialize
from ..tensors._table import rows_of
from ..tensors._values import Compound
from ._read_ahead import ReadAhead

# Held while leaves are replaced by arrays, so that the arrays of tied leaves are from the same read.
_REPLACING = Lock()


class Reader:
    """Replaces leaves among the values of a state, a dict that it changes, by arrays of one library."""

    __slots__ = ("_ahead", "_by_storage", "_library", "_values")

    # From the key of a storage to the names that have, or had, leaves in it. It is empty while all leaves are different
    # rows of one table, which do not share memory.
    _by_storage: dict[Hashable, dict[str, None]]

    def __init__(self, values: dict[str, Any], backend: str) -> None:
        self._values = values
        self._library = library(backend)
        self._ahead = ReadAhead(values)
        self._by_storage = {}
        leaves = _leaves_in(values)
        if rows_of(list(leaves.values())) is None:
            self._index(leaves)

    def read(self, name: str) -> None:
        """Read the tensor under `name`, and those after it if the caller reads one after the other."""
        names = self._ahead.batch(name, self._values)
        try:
            self._replace(names)
        except Exception:
            if len(names) == 1:
                raise
            # Another tensor may be damaged, in a closed file, or too much for the memory: this one can still be read.
            self._ahead.stop()
            self._replace([name])

    def note(self, changed: Iterable[str]) -> None:
        """Take into account the leaves that were assigned to these names."""
        new = _leaves_in({name: self._values[name] for name in changed})
        self._index(new if self._by_storage or not new else _leaves_in(self._values))

    def _replace(self, names: Iterable[str]) -> None:
        """Replace the leaves of these names, and all leaves in the same storages, by arrays."""
        values = self._values
        found = {name: value for name in names if isinstance(value := values.get(name), (Leaf, Compound))}
        if self._by_storage:
            for leaf in list(found.values()):
                if isinstance(leaf, Leaf):
                    found.update(self._beside(leaf))
        replace(values, found, materialize(list(found.values()), self._library))

    def _beside(self, leaf: Leaf) -> dict[str, Leaf]:
        """Return the leaves in the same storage as `leaf`, by name."""
        key = leaf.storage.key
        values = ((name, self._values.get(name)) for name in self._by_storage.get(key, ()))
        return {name: value for name, value in values if isinstance(value, Leaf) and value.storage.key == key}

    def _index(self, leaves: dict[str, Leaf]) -> None:
        for name, leaf in leaves.items():
            self._by_storage.setdefault(leaf.storage.key, {})[name] = None


def replace(values: dict[str, Any], found: Mapping[str, Any], arrays: Iterable[Any]) -> None:
    """Put the arrays in place of what was found, but not of what other threads have read, replaced or deleted meanwhile."""
    with _REPLACING:
        values.update((name, array) for (name, old), array in zip(found.items(), arrays) if values.get(name) is old)


def with_arrays(value: Any, backend: str) -> Any:
    """Return a value (the extra state of a module) with arrays in place of the leaves inside it; itself without any."""
    from ._tree import map_tree, tensors_of

    leaves = [part for part in tensors_of(value) if isinstance(part, (Leaf, Compound))]
    if not leaves:
        return value
    made = {id(leaf): array for leaf, array in zip(leaves, materialize(leaves, library(backend)))}
    return map_tree(value, lambda part: made.get(id(part), part))


def _leaves_in(values: dict[str, Any]) -> dict[str, Leaf]:
    # A copy first, which no other thread can interrupt.
    return {name: value for name, value in list(values.items()) if isinstance(value, Leaf)}
