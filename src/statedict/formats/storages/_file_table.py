"""Files whose tensors are rows of a table: neighbours in the file are read in one call, with the bytes between them.

A zip has some 130 bytes between two members. Reading these too costs less than anything that is done per member: one call
replaces a buffer, an entry of a plan and an entry of a vectored read for each (4 µs a tensor).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.files import File, Span, checksums_within
from statedict.state import Blocks, Storage, Table, arena

from ._extent import Extent
from ._file_source import FileSource

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]

# Storages begin at multiples of this in memory; PyTorch writes its files so that they do in the file.
ALIGNMENT = 64
# Two storages are read in one call if at most this many bytes are between them; these stay in memory, too.
GAP = 256
UNKNOWN_CRC = -1


class TableSource(FileSource):
    """The Source of a file whose tensors, mostly, are rows of a table.

    The starts of such a table are offsets in the file. Its marks are the CRC-32 of each row (or UNKNOWN_CRC), and the key of
    its storage: a number or text, which after `prefix` is its name in the file.
    """

    def __init__(
        self,
        file: File,
        prefix: str = "",
        name_of: Callable[[Storage], str | None] | None = None,
        settle: Callable[[Sequence[Storage]], None] | None = None,
    ) -> None:
        super().__init__(file, name_of, settle)
        self._prefix = prefix

    def storage_of(self, table: Table, row: int) -> Storage:
        (spec, _, location), nbytes = table.kinds[table.which[row]], table.sizes[row]
        crc, key = (column[row] for column in table.marks)
        expected = None if crc == UNKNOWN_CRC else crc
        extent = Extent(table.starts[row], nbytes, f"{self._prefix}{key}", expected, spec.dtype.itemsize)
        return self.storage(str(key), nbytes, extent, location)

    def read_table(self, table: Table, *, verify: bool = True) -> Blocks:
        import numpy as np

        places, runs, total = lay_out(table.starts, table.sizes)
        block = arena(total)
        self.file.read_into([Span(start, block[place : place + nbytes]) for start, nbytes, place in runs])
        expected = table.marks[0]
        if verify and expected[0] != UNKNOWN_CRC:
            found = checksums_within(block, places, np.array(table.sizes, np.int64)).tolist()
            if found != expected:
                row = next(row for row, pair in enumerate(zip(found, expected)) if pair[0] != pair[1])
                raise self.damaged(self.storage_of(table, row), found[row])
        return [(range(len(table)), block, places.tolist())]


class Run(NamedTuple):
    """Bytes `start … start + nbytes` of the file, which are read to `place` of a block."""

    start: int
    nbytes: int
    place: int


class Layout(NamedTuple):
    """The position of each storage in a block of `nbytes` bytes, and the runs that fill the block."""

    places: Numbers
    runs: list[Run]
    nbytes: int


def lay_out(starts: Sequence[int], sizes: Sequence[int]) -> Layout:
    """Lay out extents of a file (in any order) in an aligned block, so that neighbours are arranged as in the file.

    >>> layout = lay_out([128, 256, 9000], [64, 10, 8])
    >>> layout.places.tolist(), [tuple(run) for run in layout.runs]
    ([0, 128, 192], [(128, 138, 0), (9000, 8, 192)])
    """
    import numpy as np

    begin = np.array(starts, np.int64)
    order = np.argsort(begin, kind="stable")
    begin = begin[order]
    end = begin + np.array(sizes, np.int64)[order]
    gap = begin[1:] - end[:-1]
    apart = (gap < 0) | (gap > GAP) | ((begin[1:] - begin[:-1]) % ALIGNMENT != 0)
    first = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(apart) + 1])
    last = np.append(first[1:], len(begin)) - 1
    lengths = end[last] - begin[first]
    rooms = -(-lengths // ALIGNMENT) * ALIGNMENT
    blocks = np.cumsum(rooms) - rooms
    places = np.empty(len(begin), np.int64)
    places[order] = begin + np.repeat(blocks - begin[first], last - first + 1)
    runs = list(map(Run._make, zip(begin[first].tolist(), lengths.tolist(), blocks.tolist())))
    return Layout(places, runs, int(rooms.sum()))
