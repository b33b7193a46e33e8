"""The storages of a file that are one tensor's each, in columns: the Rows of a format that has thousands of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from statedict.files import Span, checksums_within
from statedict.state import Leaf, RowKind, Storage, arena, leaves_of

from ...errors import BoundsError
from ..storages._extent import Extent, FileSource
from ..storages._neighbours import lay_out

Numbers = np.ndarray[Any, np.dtype[np.int64]]


class FileRows:
    """Rows of extents of one file, whose bytes are the tensors' as they are in memory.

    More of them may come as long as the file is being opened. `prefix` and a storage's key are what the file calls it.
    """

    def __init__(self, source: FileSource, prefix: str) -> None:
        self.kinds: list[RowKind] = []
        self.of: list[int] = []
        self._source = source
        self._prefix = prefix
        self._extents: list[Numbers] = []
        self._whole: Numbers | None = None
        self._made: dict[int, Storage] = {}

    def add(self, kinds: Sequence[RowKind], of: Numbers, extents: Numbers) -> list[Leaf]:
        """Leaves of new rows; `of` says which of the kinds each has, `extents` where it lies: columns of offsets, lengths,
        CRC-32s (-1: unknown) and keys.

        Raises BoundsError where one of them reaches beyond what it is given."""
        reaches = np.array([kind.spec.reach * kind.spec.dtype.itemsize for kind in kinds])[of]
        if (reaches > extents[1]).any():
            raise BoundsError(
                f"a tensor reaches {int(reaches[reaches > extents[1]][0]):,} bytes into a shorter storage",
                file=self._source.name,
            )
        first = len(self.of)
        for kind in kinds:
            if kind not in self.kinds:
                self.kinds.append(kind)
        self.of += np.array([self.kinds.index(kind) for kind in kinds])[of].tolist()
        self._extents.append(extents)
        self._whole = None
        return leaves_of(self, range(first, len(self.of)))

    def adopt(self, leaf: Leaf, key: int) -> bool:
        """Make a leaf that was read by itself a row too, if it is plain and all of its storage; returns whether it is."""
        spec, storage, extent = leaf.spec, leaf.storage, leaf.storage.where
        if (
            spec.offset
            or leaf.traits.attributes is not None
            or not spec.is_contiguous
            or not spec.nbytes == storage.nbytes == extent.nbytes
            or not spec.nbytes
        ):
            return False
        kind = RowKind(spec, leaf.traits, storage.location)
        crc = -1 if extent.crc is None else extent.crc
        self.add([kind], np.zeros(1, np.int64), np.array([[extent.offset], [extent.nbytes], [crc], [key]]))
        leaf.rows, leaf.row = self, len(self.of) - 1
        self._made[leaf.row] = storage
        return True

    def storage(self, row: int) -> Storage:
        found = self._made.get(row)
        if found is None:
            offset, size, crc, number = self._columns[:, row].tolist()
            spec, _, location = self.kinds[self.of[row]]
            key = str(number)
            extent = Extent(offset, size, self._prefix + key, None if crc < 0 else crc, spec.dtype.itemsize)
            # Two threads that ask at once get the same one.
            found = self._made.setdefault(row, self._source.storage(key, size, extent, location))
        return found

    def fresh(self, rows: Sequence[int], *, verify: bool = True) -> tuple[memoryview, list[int]]:
        offsets, sizes, crcs, _ = self._taken(rows)
        places, runs, total = lay_out(offsets, sizes)
        block = arena(total)
        self._source.file.read_into([Span(start, block[place : place + nbytes]) for start, nbytes, place in runs])
        if verify and crcs[0] >= 0:
            self._compare(rows, checksums_within(block, places, sizes), crcs)
        return block, places.tolist()

    def _compare(self, rows: Sequence[int], found: Numbers, expected: Numbers) -> None:
        wrong = np.flatnonzero(found != expected).tolist()
        if wrong:
            raise self._source.damaged(self.storage(rows[wrong[0]]), int(found[wrong[0]]))

    @property
    def _columns(self) -> Numbers:
        """Offsets, lengths, CRC-32s and keys of all rows."""
        if self._whole is None:
            self._whole = np.concatenate(self._extents, axis=1)
        return self._whole

    def _taken(self, rows: Sequence[int]) -> Numbers:
        # Those that are all a state has lie one after the other, where it was not put together.
        return self._columns[:, slice(rows.start, rows.stop) if isinstance(rows, range) else np.asarray(rows)]
