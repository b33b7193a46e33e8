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
        """Return `name`, and the names of the unread tensors among `values` to be read with it: MOST bytes at most."""
        place = self._places.get(name)
        if place is None:
            return [name]
        count = self._count = min(2 * self._count, len(self._names)) if self._continues(place, values) else 1
        names: list[str] = []
        at, left = place, MOST
        # Only a caller who reads in order goes over what has been read already, so each name is passed once.
        while at < len(self._names) and len(names) < count:
            value = values.get(self._names[at])
            if isinstance(value, (Leaf, Compound)):
                left -= value.nbytes
                if names and left < 0:
                    break
                names.append(self._names[at])
            at += 1
        # Threads that read the same state at once only confuse which of them continues.
        self._next = at
        return names

    def _continues(self, place: int, values: Mapping[str, Any]) -> bool:
        """Return whether nothing is left to read between the last read and this one."""
        if not 0 <= self._next <= place:
            return False
        between = (values.get(self._names[at]) for at in range(self._next, place))
        return not any(isinstance(value, (Leaf, Compound)) for value in between)

    def stop(self) -> None:
        """Begin again with a single tensor."""
        self._next = -1
