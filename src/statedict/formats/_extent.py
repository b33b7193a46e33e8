"""Storages that lie in a file: the Source of every format.

A storage is an extent of the file, checked by the format's reader. Its bytes are read in batches through the file, or
mapped; those of the other byte order are turned round after reading, and deflated ones are inflated.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import compress, count, repeat
from operator import attrgetter, itemgetter, ne
from typing import NamedTuple

from statedict.files import File, Span, checksums, checksums_of, combine, crc32, fetch
from statedict.state import Read, Storage, arena

from ..errors import ChecksumError
from ._limits import LIMITS


class Extent(NamedTuple):
    """Where a storage lies: what `Storage.where` is for the storages of a file.

    Attributes:
        offset: its first byte in the file.
        nbytes: its length there: at least the storage's, since the checksum is of the whole.
        member: what the file calls it, for messages.
        crc: the CRC-32 that its bytes (those that are inflated, where `inflate` is given) should have; None if unknown.
        itemsize: bytes of an element: memory that is mapped must be aligned to it.
        swap: bytes that stand in reverse order, together; 1 where they stand as this machine has them.
        inflate: gives all its bytes, where they are compressed in the file.
        skip: how many of its bytes come before the storage's first.
        twins: where the same bytes should lie again, for names that are tied to this one.
    """

    offset: int
    nbytes: int
    member: str
    crc: int | None = None
    itemsize: int = 1
    swap: int = 1
    inflate: Callable[[], bytes] | None = None
    skip: int = 0
    twins: tuple[Extent, ...] = ()


PIECE = 4 << 20
FALSE_TIE = (
    "it is said to be tied to another tensor, whose bytes are different: readers that do not know of ties see others"
)
_PLACE, _CRC = itemgetter(0, 1), attrgetter("crc")


class FileSource:
    """The Source of the storages of one file.

    `expansion` is that of Limits. `name_of` gives the name of a tensor that shows a storage, for messages; it is asked only
    when something is wrong.
    `settle`, where it is given, finds out where storages lie, and is called with those whose bytes are wanted.
    """

    def __init__(
        self,
        file: File,
        name_of: Callable[[Storage], str | None] | None = None,
        settle: Callable[[Sequence[Storage]], None] | None = None,
    ) -> None:
        self.file = file
        self.name = file.name
        self.expansion = LIMITS.expansion
        self.name_of = name_of
        self._settle = settle
        self._token = next(_TOKENS)

    def storage(self, key: Hashable, nbytes: int, extent: Extent, location: str = "cpu") -> Storage:
        """A storage of this file; `key` is which one."""
        return Storage(self, (self._token, key), nbytes, extent, location)

    def storages(
        self, keys: Iterable[Hashable], sizes: Iterable[int], extents: Iterable[Extent], locations: Iterable[str]
    ) -> list[Storage]:
        """Many of them, a column for each argument of `storage`."""
        names = zip(repeat(self._token), keys)
        return list(map(Storage, repeat(self), names, sizes, extents, locations))

    def read_into(self, reads: Sequence[Read]) -> None:
        plain: list[Span] = []
        turned: list[tuple[memoryview, int]] = []
        if self._settle is not None:
            self._settle([read.storage for read in reads])
        for storage, start, into in reads:
            extent: Extent = storage.where
            if extent.inflate is not None or (extent.swap > 1 and (start % extent.swap or len(into) % extent.swap)):
                into[:] = self._whole(extent)[start : start + len(into)]
            else:
                plain.append(Span(extent.offset + extent.skip + start, into))
                if extent.swap > 1:
                    turned.append((into, extent.swap))
        if plain:
            self.file.read_into(plain)
        for into, unit in turned:
            into[:] = _turned(into, unit)

    def fresh(
        self, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int]
    ) -> tuple[memoryview, list[int]] | None:
        if self._settle is not None:
            self._settle(storages)
        extents: list[Extent] = [storage.where for storage in storages]
        if any(extent.inflate is not None or extent.swap > 1 for extent in extents):
            return None
        from ._neighbours import lay_out

        offsets = [extent.offset + extent.skip + start for extent, start in zip(extents, starts)]
        places, runs, total = lay_out(offsets, sizes)
        block = arena(total)
        self.file.read_into([Span(start, block[place : place + nbytes]) for start, nbytes, place in runs if nbytes])
        return block, places.tolist()

    def verify(self, storages: Iterable[Storage]) -> None:
        storages = list(storages)
        wrong = next(iter(self.wrong(storages)), None)
        if wrong is not None:
            raise self.damaged(*wrong)
        self._check_twins(storages)

    def check(self, storages: Sequence[Storage], views: Sequence[memoryview]) -> None:
        self._check_twins(storages)
        extents: list[Extent] = [storage.where for storage in storages]
        as_stored = [
            extent.inflate is None and extent.swap == 1 and extent.skip + storage.nbytes == extent.nbytes
            for storage, extent in zip(storages, extents)
        ]
        self.verify(compress(storages, (not plain for plain in as_stored)))
        known = [plain and extent.crc is not None for plain, extent in zip(as_stored, extents)]
        if not any(known):
            return
        extents = list(compress(extents, known))
        heads = fetch(self.file, [(extent.offset, extent.skip) for extent in extents if extent.skip])
        before = iter(map(crc32, heads))
        for storage, extent, found in zip(
            compress(storages, known), extents, checksums_of(list(compress(views, known)))
        ):
            crc = combine(next(before), found, storage.nbytes) if extent.skip else found
            if crc != extent.crc:
                raise self.damaged(storage, crc)

    def wrong(self, storages: Iterable[Storage]) -> list[tuple[Storage, int]]:
        """The storages whose bytes have another CRC than they should, with the one that they have."""
        known = [storage for storage in storages if storage.where.crc is not None]
        if self._settle is not None:
            self._settle(known)
        plain = [storage for storage in known if storage.where.inflate is None]
        extents: list[Extent] = [storage.where for storage in plain]
        found = checksums(self.file, list(map(_PLACE, extents)))
        differ = map(ne, found, map(_CRC, extents))
        wrong = list(compress(zip(plain, found), differ))
        for storage in known if len(plain) < len(known) else ():
            if storage.where.inflate is not None:
                crc = crc32(storage.where.inflate())
                if crc != storage.where.crc:
                    wrong.append((storage, crc))
        return wrong

    def _check_twins(self, storages: Iterable[Storage]) -> None:
        for twin in self.false_twins(storages):
            raise ChecksumError(FALSE_TIE, file=self.file.name, member=twin.member)

    def false_twins(self, storages: Iterable[Storage]) -> Iterator[Extent]:
        """The twins whose bytes are others."""
        for storage in storages:
            first: Extent = storage.where
            for twin in first.twins:
                if any(map(ne, self._pieces(first), self._pieces(twin))):
                    yield twin

    def _pieces(self, extent: Extent) -> Iterator[bytes]:
        """The bytes of a storage in pieces, as they are in the file."""
        if extent.inflate is not None:
            yield extent.inflate()[extent.skip :]
            return
        for start in range(extent.skip, extent.nbytes, PIECE):
            yield self.file.read(extent.offset + start, min(PIECE, extent.nbytes - start))

    def damaged(self, storage: Storage, crc: int) -> ChecksumError:
        """The error of a storage whose bytes are not those that were written."""
        name = self.name_of(storage) if self.name_of else None
        extent: Extent = storage.where
        whose = f"the bytes of {name!r}" if name else f"its {extent.nbytes:,} bytes"
        return ChecksumError(
            f"{whose} have changed since they were written: their CRC-32 is {crc:08x} and should be {extent.crc:08x}",
            file=self.file.name,
            member=extent.member,
            hint="fetch or save the file again",
        )

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        extent: Extent = storage.where
        start = extent.offset + extent.skip
        mapped = self.file.view(writable=writable)
        if mapped is None or extent.inflate is not None or extent.swap > 1 or start % extent.itemsize:
            return None
        return mapped[start : start + storage.nbytes]

    def _whole(self, extent: Extent) -> bytes:
        """The storage's bytes, as this machine has them."""
        raw = extent.inflate() if extent.inflate else self.file.read(extent.offset, extent.nbytes)
        return _turned(raw[extent.skip :], extent.swap)


def _turned(data: bytes | memoryview, unit: int) -> bytes:
    """The bytes with each run of `unit` bytes reversed."""
    if unit == 1:
        return bytes(data)
    turned = bytearray(data)
    for place in range(unit):
        turned[place::unit] = data[unit - 1 - place :: unit]
    return bytes(turned)


_TOKENS = count()
