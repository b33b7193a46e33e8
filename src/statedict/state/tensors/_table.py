"""Tensors stored column-wise: one value from the directory of a file to the memory of a model, and back.

A state of thousands of small tensors has few different specs. So what tensors have in common (a RowKind) is kept once,
and what differs is kept in columns: the number of the kind, where the bytes begin, and how many there are. A Table is
these columns for tensors of one source:

- Readers of files append the tensors that they find (`extend`), and `leaves_of` makes the leaves of a state from them. Such
  a leaf is only (table, row): 0.2 µs, where a spec, a storage, its key and its position take 1.5. It creates its spec and
  storage when they are first used.
- Writers get the tensors of a model as a table from the array library (`ArrayLibrary.table`).
- `table_of` goes back from the leaves of a state to a table: the rows themselves if all leaves are rows of one table, or
  else a table of single leaves, made here and nowhere else. Code that handles many leaves calls it first and has one
  branch for both.

`sizes[row]` bytes from `starts[row]` on are the elements of a row, without gaps. Only the source of a table knows what a
start is counted from (the beginning of a file, or of a storage, or an address in memory), and what else it needs for each
row: these columns are `marks`. A tensor that needs more (a view with gaps, a region of a tensor that is distributed over
several files) stays a single leaf, or gets a source of its own whose `marks` describe it.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, TypeVar

from ._leaf import Bulk, Leaf, Read, Source, Spec, Storage, Traits

T = TypeVar("T")

# Some of the rows (or storages) that were read, a block of fresh memory with their bytes, and where each begins in it.
Blocks = list[tuple[Sequence[int], memoryview, list[int]]]
# Tensor libraries want aligned vectors, and 64 bytes is a cache line; PyTorch's allocator and file format use it too.
ALIGNMENT = 64
# Huge pages halve the cost of the first access (2.8 → 5.5 GB/s per thread); smaller blocks do not get any.
HUGE = 4 << 20
# Windows has no flags: its anonymous memory is always private.
FLAGS: int = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
PRIVATE: dict[str, Any] = {"flags": FLAGS} if FLAGS else {}


class RowKind(NamedTuple):
    """The properties that many tensors have in common; `location` is the device that their storages were saved from."""

    spec: Spec
    traits: Traits
    location: str = "cpu"


class Tabular(Protocol):
    """The source of a table. This is its whole surface."""

    def storage_of(self, table: Table, row: int) -> Storage:
        """Return the storage of a row; the storages of one row have equal keys."""

    def read_table(self, table: Table, *, verify: bool = True) -> Blocks:
        """Read the elements of all rows into blocks of fresh writable memory, aligned to 64 bytes.

        Raises ChecksumError if `verify` and the bytes of a row do not match their checksum.
        """


class Table:
    """Tensors of one source, column-wise (see the module's docstring).

    Attributes:
        kinds: the different kinds.
        which: the number of each row's kind.
        starts, sizes: the position of each row's bytes, and their number.
        marks: further columns, private to the source.
        source: reads the rows; None for tensors in memory, whose starts are addresses.
    """

    __slots__ = ("kinds", "marks", "sizes", "source", "starts", "which")

    def __init__(
        self,
        source: Tabular | None,
        kinds: Sequence[RowKind] = (),
        which: Sequence[int] = (),
        starts: Sequence[int] = (),
        sizes: Sequence[int] = (),
        *marks: Sequence[Any],
    ) -> None:
        self.source = source
        self.kinds = list(kinds)
        self.which = list(which)
        self.starts = list(starts)
        self.sizes = list(sizes)
        self.marks = [list(column) for column in marks]

    def __len__(self) -> int:
        return len(self.which)

    def of_each(self, fact: Callable[[RowKind], T]) -> list[T]:
        """Return a column with a property of each row's kind. (`fact` is called for kinds without rows, too.)"""
        known = list(map(fact, self.kinds))
        return known * len(self.which) if len(known) == 1 else list(map(known.__getitem__, self.which))

    def used(self) -> list[RowKind]:
        """Return the kinds that have rows."""
        return self.kinds if len(self.kinds) == 1 else [self.kinds[number] for number in set(self.which)]

    def taken(self, rows: Sequence[int]) -> Table:
        """Return a table of these rows, in this order."""
        if rows == range(len(self.which)):
            return self
        columns = (list(map(column.__getitem__, rows)) for column in (self.which, self.starts, self.sizes, *self.marks))
        return Table(self.source, self.kinds, *columns)

    def extend(self, which: Sequence[int], starts: Sequence[int], sizes: Sequence[int], *marks: Sequence[Any]) -> range:
        """Append rows; return their numbers."""
        first = len(self.which)
        for column, more in zip((self.which, self.starts, self.sizes, *self.marks), (which, starts, sizes, *marks)):
            column += more
        return range(first, len(self.which))

    def storage(self, row: int) -> Storage:
        """Return the storage of a row."""
        assert self.source is not None
        return self.source.storage_of(self, row)

    def leaf(self, row: int) -> Leaf:
        """Return the tensor in a row as a leaf of its storage."""
        kind = self.kinds[self.which[row]]
        return Leaf.unchecked(kind.spec, self.storage(row), kind.traits)

    def single_storages(self) -> Sequence[Storage]:
        """Return the storages of single leaves; nothing for tables of a file."""
        return self.marks[0] if self.source is _SINGLE else ()

    def read(self, *, verify: bool = True) -> Blocks:
        """Read the elements of all rows (`Tabular.read_table`)."""
        assert self.source is not None
        return self.source.read_table(self, verify=verify) if self.which else []


def leaves_of(table: Table, rows: range) -> list[Leaf]:
    """Return a leaf for each of these rows."""
    if len(rows) == 1:
        leaf = Leaf.__new__(Leaf)
        leaf.table, leaf.row = table, rows[0]
        return [leaf]
    made: list[Leaf] = list(map(Leaf.__new__, repeat(Leaf, len(rows))))
    deque(map(_SET_TABLE, made, repeat(table)), maxlen=0)
    deque(map(_SET_ROW, made, rows), maxlen=0)
    return made


def rows_of(values: Sequence[Any]) -> Table | None:
    """Return the values as a table if all are different rows of one table; None otherwise."""
    if not values or set(map(type, values)) != {Leaf}:
        return None
    tables = set(map(_TABLE, values))
    table: Table | None = tables.pop()
    if tables or table is None:
        return None
    rows = list(map(_ROW, values))
    if rows == list(range(rows[0], rows[0] + len(rows))):
        return table.taken(range(rows[0], rows[0] + len(rows)))
    return table.taken(rows) if len(set(rows)) == len(rows) else None


def table_of(values: Sequence[Any]) -> Table | None:
    """Return the values as a table if all are leaves (of contiguous tensors, if it is to be read); None otherwise.

    >>> from statedict.state import leaf_of
    >>> table = table_of([leaf_of(np.zeros(3)), leaf_of(np.ones(3))])
    >>> len(table), table.sizes
    (2, [24, 24])
    """
    if not values or set(map(type, values)) != {Leaf}:
        return None
    return rows_of(values) or single_rows(values)


def single_rows(leaves: Sequence[Leaf]) -> Table:
    """Return a table of single leaves; reading it needs contiguous ones."""
    storages: list[Storage] = list(map(_STORAGE, leaves))
    kinds: list[RowKind] = []
    # Leaves of one spec mostly share the object, and comparing specs is slow.
    numbers: dict[tuple[int, int, str], int] = {}
    which = []
    for leaf, location in zip(leaves, map(_LOCATION, storages)):
        key = id(leaf.spec), id(leaf.traits), location
        if key not in numbers:
            numbers[key] = len(kinds)
            kinds.append(RowKind(leaf.spec, leaf.traits, location))
        which.append(numbers[key])
    table = Table(_SINGLE, kinds, which)
    table.starts = table.of_each(lambda kind: kind.spec.offset * kind.spec.dtype.itemsize)
    table.sizes = table.of_each(lambda kind: kind.spec.nbytes)
    table.marks = [storages]
    return table


class _Single:
    """The source of a table of single leaves: starts are counted in their storages, which are the first of `marks`."""

    def storage_of(self, table: Table, row: int) -> Storage:
        found: Storage = table.marks[0][row]
        return found

    def read_table(self, table: Table, *, verify: bool = True) -> Blocks:
        return blocks(table.marks[0], table.starts, table.sizes, verify=verify)


def blocks(storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], *, verify: bool) -> Blocks:
    """Read bytes `start … start + size` of each storage into blocks of fresh writable memory, one for each source."""
    found: Blocks = []
    for some in _by_identity([storage.source for storage in storages]):
        mine = [storages[n] for n in some]
        block, places = _block(mine, [starts[n] for n in some], [sizes[n] for n in some], verify)
        found.append((some, block, places))
    return found


def memory_of(found: Blocks, sizes: Sequence[int]) -> list[memoryview]:
    """Return the memory of each of the rows or storages, of these sizes, that were read."""
    memory = [memoryview(b"")] * len(sizes)
    for some, block, places in found:
        for index, place in zip(some, places):
            memory[index] = block[place : place + sizes[index]]
    return memory


def by_source(storages: Iterable[Storage]) -> list[list[Storage]]:
    """Group storages by their source, because sources read in batches."""
    storages = list(storages)
    return [[storages[n] for n in some] for some in _by_identity([storage.source for storage in storages])]


def _by_identity(objects: Sequence[object]) -> list[Sequence[int]]:
    """Return the indices of each object's occurrences."""
    if len(set(map(id, objects))) == 1:
        return [range(len(objects))]
    groups: dict[int, list[int]] = {}
    for index, each in enumerate(objects):
        groups.setdefault(id(each), []).append(index)
    return list(groups.values())


def _block(
    storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], verify: bool
) -> tuple[memoryview, list[int]]:
    source: Source = storages[0].source
    found = source.fresh(storages, starts, sizes, verify=verify) if isinstance(source, Bulk) else None
    if found is not None:
        return found
    rooms = [-(-nbytes // ALIGNMENT) * ALIGNMENT for nbytes in sizes]
    block = arena(sum(rooms))
    places = [end - room for end, room in zip(accumulate(rooms), rooms)]
    views = [block[place : place + nbytes] for place, nbytes in zip(places, sizes)]
    source.read_into([Read(*each) for each in zip(storages, starts, views) if len(each[2])], verify=verify)
    return block, places


def arena(nbytes: int) -> memoryview:
    """Return fresh zeroed writable memory, in huge pages if the system grants them."""
    if nbytes < HUGE:
        return memoryview(bytearray(nbytes))
    block = mmap.mmap(-1, nbytes, **PRIVATE)
    if hasattr(block, "madvise") and hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(block)


_SINGLE = _Single()
_TABLE, _ROW, _STORAGE, _LOCATION = map(attrgetter, ("table", "row", "storage", "location"))
_SET_TABLE, _SET_ROW = vars(Leaf)["table"].__set__, vars(Leaf)["row"].__set__
