"""Read ahead for a caller who reads the tensors of a state one after the other.

Reading a tensor by itself takes 200 µs, reading it together with others a few. As in an operating system's page cache, the
number of tensors that are read together doubles with each read that continues the one before, so a caller who wants only a
few tensors does not wait for others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..tensors._leaf import Leaf
from ..tensors._values import Compound

# Bytes of tensors that are read together.
MOST = 16 << 20


class ReadAhead:
    """The names of a state in order, and where the next read would continue the last one.

    Names that are added later are read one by one.
    """

    __slots__ = ("_count", "_names", "_next", "_places")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._next, self._count = -1, 1

    def batch(self, name: str, values: Mapping[str, Any]) -> list[str]:
        """Return `name`, and the names of the unread tensors among `values` to be read with it."""
        place = self._places.get(name)
        if place is None:
            return [name]
        self._count = 2 * self._count if place == self._next else 1
        names: list[str] = []
        left = MOST
        for at in range(place, len(self._names)):
            value = values.get(self._names[at])
            if isinstance(value, (Leaf, Compound)):
                if len(names) == self._count or left <= 0:
                    self._next = at
                    break
                names.append(self._names[at])
                left -= value.nbytes
        return names

    def stop(self) -> None:
        """Begin again with a single tensor."""
        self._next = -1
