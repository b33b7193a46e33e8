"""Many leaves in columns: what a file tells of thousands of tensors is kept as it was read, in lists and arrays.

Each row is the one leaf of a storage of its own, and shows all of it, contiguously. A leaf of such rows knows its number;
its Spec and Storage are made when somebody asks. Who has all of them looks at the columns instead: 0.2 µs a tensor to make
such a leaf, where a Spec, a Storage, its key and its place take 1.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeVar

from ._leaf import Leaf, Storage, Traits
from ._spec import Spec

T = TypeVar("T")


class RowKind(NamedTuple):
    """What leaves have in common; `location`: the device that their storages were saved from."""

    spec: Spec
    traits: Traits
    location: str


class Rows(Protocol):
    """Leaves of one Source, in columns. This is its whole surface.

    Attributes:
        kinds: the distinct ones.
        of: for each row the number of its kind.
    """

    kinds: list[RowKind]
    of: list[int]

    def storage(self, row: int) -> Storage:
        """The storage of a row: one object, however often it is asked for."""

    def fresh(self, rows: Sequence[int], *, verify: bool = True) -> tuple[memoryview, list[int]]:
        """The bytes of these rows in one block of fresh writable memory, and where in it each begins (multiples of 64).

        Raises ChecksumError if `verify` and the bytes of a row are not those that were written.
        """


class Many(NamedTuple):
    """Some rows, in order."""

    table: Rows
    numbers: Sequence[int]

    def of_each(self, fact: Callable[[RowKind], T]) -> list[T]:
        """A column of what there is one of for each kind (of the table's: `fact` is asked about others too)."""
        known = list(map(fact, self.table.kinds))
        if len(known) == 1:
            return known * len(self.numbers)
        of = self.table.of
        return [known[of[number]] for number in self.numbers]

    def kinds(self) -> list[RowKind]:
        """The kinds that there are."""
        known = self.table.kinds
        return known if len(known) == 1 else [known[n] for n in set(map(self.table.of.__getitem__, self.numbers))]

    def sizes(self) -> list[int]:
        """The bytes of each."""
        return self.of_each(lambda kind: kind.spec.nbytes)


def leaves_of(rows: Rows, numbers: range) -> list[Leaf]:
    """A leaf for each of the rows."""
    made: list[Leaf] = list(map(Leaf.__new__, repeat(Leaf, len(numbers))))
    deque(map(_SET_ROWS, made, repeat(rows)), maxlen=0)
    deque(map(_SET_ROW, made, numbers), maxlen=0)
    return made


def leaf_at(rows: Rows, row: int) -> Leaf:
    """A leaf for one row."""
    leaf = Leaf.__new__(Leaf)
    leaf.rows, leaf.row = rows, row
    return leaf


def many(values: Sequence[Any]) -> Many | None:
    """The values as rows of one table, each row once; None where they are anything else."""
    if not values or set(map(type, values)) != {Leaf}:
        return None
    tables = set(map(_ROWS, values))
    table = tables.pop()
    if tables or table is None:
        return None
    numbers = list(map(_ROW, values))
    run = range(numbers[0], numbers[0] + len(numbers))
    if numbers == list(run):
        return Many(table, run)
    return Many(table, numbers) if len(set(numbers)) == len(numbers) else None


_ROWS, _ROW = attrgetter("rows"), attrgetter("row")
_SET_ROWS, _SET_ROW = vars(Leaf)["rows"].__set__, vars(Leaf)["row"].__set__
