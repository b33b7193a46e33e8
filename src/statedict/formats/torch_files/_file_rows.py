"""The storages of a file that are one tensor's each, in columns: the Rows of a format that has thousands of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from statedict.files import Span, checksums_within
from statedict.state import Leaf, RowKind, Storage, arena

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
        self._numbers: dict[RowKind, int] = {}
        self.of: list[int] = []
        self._source = source
        self._prefix = prefix
        self._extents: list[Numbers] = []
        self._whole: Numbers | None = None
        self._made: dict[int, Storage] = {}

    def add(self, kinds: Sequence[RowKind], of: Numbers, extents: Numbers) -> None:
        """Add rows; `of` says which of the kinds each has, `extents` where it lies: columns of offsets, lengths, CRC-32s
        (-1: unknown) and keys.

        Raises BoundsError where one of them reaches beyond its extent."""
        reaches = np.array([kind.spec.reach * kind.spec.dtype.itemsize for kind in kinds])[of]
        if (reaches > extents[1]).any():
            raise BoundsError(
                f"a tensor reaches {int(reaches[reaches > extents[1]][0]):,} bytes into a shorter storage",
                file=self._source.name,
            )
        numbers = [self._numbers.setdefault(kind, len(self._numbers)) for kind in kinds]
        self.kinds = list(self._numbers)
        self.of += np.array(numbers)[of].tolist()
        self._extents.append(extents)
        self._whole = None

    def adopt(self, leaves: Sequence[Leaf], keys: Sequence[str]) -> None:
        """Make rows of leaves that were read one by one, each all of an extent of its own that no row has;
        `keys`: what the file calls their storages."""
        kinds = [RowKind(leaf.spec, leaf.traits, leaf.storage.location) for leaf in leaves]
        extents: list[Extent] = [leaf.storage.where for leaf in leaves]
        facts = [
            (extent.offset, extent.nbytes, -1 if extent.crc is None else extent.crc, int(key))
            for extent, key in zip(extents, keys)
        ]
        first = len(self.of)
        self.add(kinds, np.arange(len(leaves)), np.array(facts).T)
        for row, leaf in enumerate(leaves, first):
            leaf.rows, leaf.row = self, row
            self._made[row] = leaf.storage

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
