"""What was worked out of bytes lately, for when the same bytes come again: the next checkpoint of a run, the same file.

Values are shared by all who find them, so they are never changed; they hold neither files nor anything of a caller's.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, Generic, TypeVar

from statedict.files import crc32

V = TypeVar("V")
# Of each kind so many are kept, of so many bytes together: what a value takes is in proportion.
MOST, NBYTES = 4, 16 << 20


class Recent(Generic[V]):
    """The values of the bytes that came last. Threads may share it."""

    def __init__(self, most: int = MOST, nbytes: int = NBYTES) -> None:
        self._most = most
        self._left = nbytes
        self._kept: OrderedDict[tuple[int, int], tuple[bytes, V]] = OrderedDict()
        self._lock = Lock()
        _ALL.append(self)

    def find(self, content: bytes) -> V | None:
        """The value that was kept with the very same bytes."""
        key = len(content), crc32(content)
        with self._lock:
            found = self._kept.get(key)
            if found is None or found[0] != content:
                return None
            self._kept.move_to_end(key)
            return found[1]

    def keep(self, content: bytes, value: V) -> None:
        """Keep a value, and let go of those that were not asked for the longest."""
        key = len(content), crc32(content)
        with self._lock:
            if key in self._kept:
                self._left += key[0]
            self._kept[key] = content, value
            self._kept.move_to_end(key)
            self._left -= key[0]
            while self._kept and (self._left < 0 or len(self._kept) > self._most):
                (size, _), _ = self._kept.popitem(last=False)
                self._left += size

    def forget(self) -> None:
        """Let go of all."""
        with self._lock:
            self._left += sum(size for size, _ in self._kept)
            self._kept.clear()


_ALL: list[Recent[Any]] = []


def forget() -> None:
    """Let go of everything that is kept of files that were read."""
    for recent in _ALL:
        recent.forget()
