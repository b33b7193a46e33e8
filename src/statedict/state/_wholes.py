"""Many live tensors in columns, each of them all of its memory: what a state of many small ones usually is.

A leaf, its spec and its storage for each take 3 µs, and a view of its memory 1 µs more: for 32,000 tensors of 64 bytes that
was a third of the time of saving them. Columns take 1 µs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ._leaf import Traits
from ._spec import Spec

T = TypeVar("T")


class Wholes(NamedTuple):
    """Tensors that are all of a storage in the CPU's memory; a row for each.

    Attributes:
        kinds: the specs that there are: of offset 0, and as many bytes as the storage has.
        traits: what tensors of each kind are beyond their elements: nothing, or Parameters.
        which: of which of these kinds each tensor is.
        pointers, sizes: where the bytes lie, and how many; never 0.
        owners: what keeps the memory alive.
    """

    kinds: Sequence[Spec]
    traits: Sequence[Traits]
    which: Sequence[int]
    pointers: Sequence[int]
    sizes: Sequence[int]
    owners: Sequence[object]

    def of_each(self, facts: Iterable[T]) -> list[T]:
        """A column of what there is one of for each kind."""
        return list(map(list(facts).__getitem__, self.which))

    def taken(self, rows: Sequence[int]) -> Wholes:
        """These rows, in this order."""
        which, pointers, sizes = ([column[row] for row in rows] for column in (self.which, self.pointers, self.sizes))
        return Wholes(self.kinds, self.traits, which, pointers, sizes, [self.owners[row] for row in rows])

    def view(self, row: int) -> memoryview:
        """The bytes of one, where they lie."""
        return memory_at(self.pointers[row], self.sizes[row], self.owners[row])

    def copies(self, start: int, stop: int) -> list[bytes]:
        """The bytes of some, a copy of each: small ones of one size together (0.1 µs each), others one by one (0.3 µs)."""
        sizes = self.sizes[start:stop]
        if len(set(sizes)) == 1 and len(sizes) >= FEW and sizes[0] <= SMALL:
            return _rows(self.pointers[start:stop], sizes[0])
        return list(map(ctypes.string_at, self.pointers[start:stop], sizes))


# Copying together pays from so many on, and for so few bytes.
FEW, SMALL = 16, 4096


def _rows(pointers: Sequence[int], nbytes: int) -> list[bytes]:
    """The `nbytes` bytes at each of the addresses."""
    import numpy as np

    rows: list[bytes] = _gathered(np.array(pointers, np.int64), nbytes).tolist()
    return rows


def copy_rows(sources: Sequence[int], targets: Sequence[int], sizes: Sequence[int]) -> None:
    """Copy `sizes` bytes (few different numbers, none 0) from each source address to a target address of its own."""
    import numpy as np

    lengths, where = np.array(sizes, np.int64), np.array(targets, np.int64)
    origins = np.array(sources, np.int64)
    for nbytes in np.unique(lengths).tolist():
        of_size = lengths == nbytes
        rows, lowest = _windows(where[of_size], nbytes)
        rows[where[of_size] - lowest] = _gathered(origins[of_size], nbytes)


def _gathered(pointers: Any, nbytes: int) -> Any:
    rows, lowest = _windows(pointers, nbytes)
    return rows[pointers - lowest]


def _windows(pointers: Any, nbytes: int) -> tuple[Any, int]:
    """`nbytes` bytes from every address between the lowest pointer and the highest, and the lowest.

    All memory between is taken for one array, of which nothing is touched but what the pointers lead to.
    """
    import numpy as np

    lowest = int(pointers.min())
    count = int(pointers.max()) - lowest + 1
    memory: Any = (ctypes.c_char * (count + nbytes - 1)).from_address(lowest)
    return np.ndarray((count,), f"V{nbytes}", memory, strides=(1,)), lowest


def memory_at(address: int, nbytes: int, owner: object) -> memoryview:
    """Memory as a writable view that keeps its owner alive: 1 µs, where a tensor's `numpy()` with its storage's takes 6."""
    block: Any = _array_of(nbytes).from_address(address)
    block.owner = owner
    return memoryview(block).cast("B")


@lru_cache(maxsize=1024)
def _array_of(nbytes: int) -> Any:
    # ctypes forgets a type with its last array, and making one takes 10 µs.
    return ctypes.c_char * nbytes
