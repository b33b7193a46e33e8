"""FileSource: the Source of the storages in a file, for every format.

A storage is an Extent of the file, checked by the format's reader. Its bytes are read in batches through the file, or
mapped; those of the other byte order are reversed after reading, and deflated ones are inflated.

Every way to read a storage verifies it, unless the caller says otherwise: while it is read, if all bytes that the checksum
covers are read; otherwise by one pass over the whole storage before its first part is read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import compress, count
from operator import attrgetter, itemgetter, ne, or_

from statedict.files import (
    PORTION,
    WAITING,
    File,
    Span,
    Sum,
    check_inside,
    checksums,
    checksums_of,
    combine,
    crc32,
    fetch,
    joined,
    read_checked,
)
from statedict.state import Leaf, Read, Storage, arena, check_bounds, excerpt

from ...errors import ChecksumError
from .._limits import LIMITS
from ._extent import Extent, is_computed, offset_of, swapped

# Storages up to this size are read with those that follow, this many bytes at a time.
SMALL, AHEAD = 64 << 10, 256 << 10
PIECE = 4 << 20
FALSE_TIE = (
    "it is said to be tied to another tensor, whose bytes are different: readers that do not know of ties see others"
)
_EXTENT, _CRC = itemgetter(0, 1), attrgetter("crc")


class FileSource:
    """The Source of the storages of one file.

    `expansion` is that of Limits. `name_of` returns the name of a tensor of a storage; it is called only for error messages.
    `settle`, if given, is called with the storages about to be read and fills in their offsets.
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
        # Keys of storages that were verified as a whole.
        self._sound: set[Hashable] = set()
        # Storages whose checksums several processes verify together: the sums of the parts that have arrived, None if
        # they are not needed.
        self._shared: dict[Hashable, list[Sum] | None] = {}
        # A place in the file, and the bytes that were read there last.
        self._near = 0, b""

    def storage(self, key: Hashable, nbytes: int, extent: Extent, location: str = "cpu") -> Storage:
        """Return a storage of this file; `key` identifies it."""
        return Storage(self, (self._token, key), nbytes, extent, location)

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        if self._settle is not None:
            self._settle([read.storage for read in reads])
        plain: list[Read] = []
        for read in reads:
            storage, start, into = read
            extent: Extent = storage.where
            lone = len(reads) == 1 and len(into) == storage.nbytes <= SMALL
            odd = extent.swap > 1 and (start % extent.swap or len(into) % extent.swap)
            if lone or odd or extent.inflate is not None:
                into[:] = self._whole(storage, verify=verify)[start : start + len(into)]
            else:
                plain.append(read)
        storages, starts, views = zip(*plain) if plain else ((), (), ())
        spans = [Span(offset_of(*each), into) for *each, into in zip(storages, starts, views)]
        checked = self._checked_on_arrival(storages, starts, list(map(len, views)), verify)
        self.file.read_into([span for span, checks in zip(spans, checked) if not checks])
        if any(checked):
            found = read_checked(self.file, list(compress(spans, checked)))
            self._arrived(compress(zip(storages, starts, map(len, views)), checked), found)
        for storage, _, into in plain:
            if storage.where.swap > 1:
                into[:] = swapped(into, storage.where.swap)

    def fresh(
        self, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], *, verify: bool = True
    ) -> tuple[memoryview, list[int]] | None:
        check_bounds(zip(storages, starts, sizes))
        if self._settle is not None:
            self._settle(storages)
        if any(map(is_computed, storages)):
            return None
        from ._file_table import lay_out

        checked = self._checked_on_arrival(storages, starts, sizes, verify)
        places, runs, total = lay_out(list(map(offset_of, storages, starts)), sizes)
        block = arena(total)
        self.file.read_into([Span(start, block[place : place + nbytes]) for start, nbytes, place in runs if nbytes])
        found = places.tolist()
        if any(checked):
            views = [block[place : place + nbytes] for place, nbytes in compress(zip(found, sizes), checked)]
            self._arrived(compress(zip(storages, starts, sizes), checked), checksums_of(views))
        return block, found

    def in_pieces(self, storage: Storage) -> bool:
        return not is_computed(storage)

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        if self._settle is not None:
            self._settle([storage])
        if stop - start == storage.nbytes <= SMALL or is_computed(storage):
            yield memoryview(self._whole(storage))[start:stop]
            return
        (checks,) = self._checked_on_arrival([storage], [start], [stop - start], True)
        crc, first = 0, offset_of(storage, 0)
        step = PORTION * WAITING if self.file.far else PORTION
        for at in range(start, stop, step):
            piece = self.file.read(first + at, min(step, stop - at))
            crc = crc32(piece, crc) if checks else 0
            yield memoryview(piece)
        self.file.check_unchanged()
        if checks:
            self._arrived([(storage, start, stop - start)], [crc])

    def part(self, leaf: Leaf) -> Leaf:
        return excerpt(leaf)

    def verify(self, storages: Iterable[Storage]) -> None:
        storages = [storage for storage in storages if storage.key not in self._shared]
        wrong = next(iter(self.wrong(storages)), None)
        if wrong is not None:
            raise self.damaged(*wrong)
        self._check_twins(storages)
        self._sound.update(storage.key for storage in storages)

    def lease(self, storages: Sequence[Storage], until: ExitStack) -> Callable[[], bool] | None:
        if any(map(is_computed, storages)):
            return None
        held = self.file.lease(until)
        if held is not None:
            self.verify(storages)
            # Without a checksum there is nothing to compare, but unreadable bytes are still detected.
            unknown = [storage for storage in storages if storage.where.crc is None]
            if self._settle is not None:
                self._settle(unknown)
            checksums(self.file, [(offset_of(storage, 0), storage.nbytes) for storage in unknown])
        return held

    def _checked_on_arrival(
        self, storages: Sequence[Storage], starts: Sequence[int], sizes: Sequence[int], verify: bool
    ) -> list[bool]:
        """Return, for each storage, whether its CRC-32 is to be computed from the bytes that are about to be read.

        It is, if these are all bytes of the checksum. Other storages are verified here, unless they have been before.
        """
        if verify:
            self._check_twins(storages)
        known = [verify and storage.where.crc is not None for storage in storages]
        checked = [
            checks and not start and nbytes == storage.nbytes == storage.where.nbytes - storage.where.skip
            for checks, storage, start, nbytes in zip(known, storages, starts, sizes)
        ]
        if checked != known:
            shared = self._shared
            parts = [storage for storage, checks, whole in zip(storages, known, checked) if checks and not whole]
            unproven = {s.key: s for s in parts if s.key not in self._sound and s.key not in shared}
            if unproven:
                self.verify(unproven.values())
            if shared:
                sums = [checks and shared.get(storage.key) is not None for storage, checks in zip(storages, known)]
                checked = list(map(or_, checked, sums))
        return checked

    def _arrived(self, parts: Iterable[tuple[Storage, int, int]], found: Sequence[int]) -> None:
        """Compare storages that have been read; of those that are shared, keep the CRC-32 of each part (start, bytes)."""
        whole: list[tuple[Storage, int]] = []
        for (storage, start, nbytes), crc in zip(parts, found):
            sums = self._shared.get(storage.key)
            if sums is None:
                whole.append((storage, crc))
            else:
                sums.append((start, start + nbytes, crc))
        self._compare(whole)

    def shareable(self, storage: Storage) -> bool:
        extent: Extent = storage.where
        return (
            (extent.crc is not None or bool(extent.twins))
            and not is_computed(storage)
            and all(
                each.inflate is None and each.nbytes - each.skip == storage.nbytes for each in (extent, *extent.twins)
            )
        )

    def share(self, storages: Iterable[Storage], *, arriving: bool) -> None:
        self._shared.update((storage.key, [] if arriving else None) for storage in storages)

    def unshare(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            self._shared.pop(storage.key, None)

    def sums(self, ranges: Sequence[tuple[Storage, int, int]]) -> list[int]:
        if self._settle is not None:
            self._settle([storage for storage, _, _ in ranges])
        found: dict[tuple[Hashable, int, int], int] = {}
        for key in {storage.key for storage, _, _ in ranges}:
            found.update(((key, start, stop), crc) for start, stop, crc in joined(self._shared.get(key) or ()))
        missing = [(s, start, stop) for s, start, stop in ranges if (s.key, start, stop) not in found]
        read = checksums(self.file, [(offset_of(s, start), stop - start) for s, start, stop in missing])
        found.update(((s.key, start, stop), crc) for (s, start, stop), crc in zip(missing, read))
        sums = [found[s.key, start, stop] for s, start, stop in ranges]
        self._check_twin_ranges(ranges, sums)
        return sums

    def _check_twin_ranges(self, ranges: Iterable[tuple[Storage, int, int]], sums: Iterable[int]) -> None:
        """Raise ChecksumError if a range, which has this CRC-32, has another one in a twin of its storage."""
        twins = [
            (twin, twin.offset + twin.skip + start, stop - start, crc)
            for (storage, start, stop), crc in zip(ranges, sums)
            for twin in storage.where.twins
        ]
        found = checksums(self.file, [(at, nbytes) for _, at, nbytes, _ in twins])
        for (twin, _, _, crc), other in zip(twins, found):
            if crc != other:
                raise ChecksumError(FALSE_TIE, file=self.file.name, member=twin.member)

    def compare(self, storages: Sequence[Storage], found: Sequence[int]) -> None:
        self._compare([(s, crc) for s, crc in zip(storages, found) if s.where.crc is not None])
        self._sound.update(storage.key for storage in storages)

    def _compare(self, found: Sequence[tuple[Storage, int]]) -> None:
        """Raise ChecksumError if a storage, whose bytes have been read and have this CRC-32, should have another."""
        extents: list[Extent] = [storage.where for storage, _ in found]
        heads = fetch(self.file, [(extent.offset, extent.skip) for extent in extents if extent.skip])
        before = iter(map(crc32, heads))
        for (storage, crc), extent in zip(found, extents):
            if extent.skip:
                crc = combine(next(before), crc, storage.nbytes)
            if crc != extent.crc:
                raise self.damaged(storage, crc)

    def wrong(self, storages: Iterable[Storage]) -> list[tuple[Storage, int]]:
        """Return the storages whose bytes do not match their CRC-32, each with the CRC-32 of its bytes."""
        known = [storage for storage in storages if storage.where.crc is not None]
        if self._settle is not None:
            self._settle(known)
        plain = [storage for storage in known if storage.where.inflate is None]
        extents: list[Extent] = [storage.where for storage in plain]
        found = checksums(self.file, list(map(_EXTENT, extents)))
        differ = map(ne, found, map(_CRC, extents))
        wrong = list(compress(zip(plain, found), differ))
        for storage in known if len(plain) < len(known) else ():
            if storage.where.inflate is not None:
                crc = crc32(storage.where.inflate())
                if crc != storage.where.crc:
                    wrong.append((storage, crc))
        return wrong

    def _check_twins(self, storages: Iterable[Storage]) -> None:
        """Raise ChecksumError if a storage that has not been verified is said to be tied to one with other bytes."""
        unproven = (s for s in storages if s.where.twins and s.key not in self._sound and s.key not in self._shared)
        for twin in self.false_twins(unproven):
            raise ChecksumError(FALSE_TIE, file=self.file.name, member=twin.member)

    def false_twins(self, storages: Iterable[Storage]) -> Iterator[Extent]:
        """Yield the twins whose bytes differ."""
        for storage in storages:
            first: Extent = storage.where
            for twin in first.twins:
                if any(map(ne, self._pieces(first), self._pieces(twin))):
                    yield twin

    def _pieces(self, extent: Extent) -> Iterator[bytes]:
        """The bytes of a storage in pieces, as they are in the file."""
        inflated = extent.inflate() if extent.inflate is not None else None
        for start in range(extent.skip, extent.nbytes, PIECE):
            stop = min(start + PIECE, extent.nbytes)
            yield self.file.read(extent.offset + start, stop - start) if inflated is None else inflated[start:stop]

    def damaged(self, storage: Storage, crc: int) -> ChecksumError:
        """Return the error for a storage whose bytes do not match their CRC-32."""
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
        if is_computed(storage):
            return None if writable else memoryview(self._whole(storage))
        mapped = self.file.mapped() if writable else None
        start = offset_of(storage, 0)
        if mapped is None or start % storage.where.itemsize:
            return None
        check_inside(self.file, start, storage.nbytes)
        return mapped[start : start + storage.nbytes]

    def _whole(self, storage: Storage, *, verify: bool = True) -> bytes:
        """The storage's bytes, as this machine has them."""
        extent: Extent = storage.where
        raw = extent.inflate() if extent.inflate else self._read(extent)
        self.file.check_unchanged()
        if verify and extent.crc is not None and crc32(raw) != extent.crc:
            raise self.damaged(storage, crc32(raw))
        if verify:
            self._check_twins([storage])
        return swapped(raw[extent.skip : extent.skip + storage.nbytes], extent.swap)

    def _read(self, extent: Extent) -> bytes:
        """The bytes in the file. A small read brings what follows with it, since storages are often read in order."""
        start, near = self._near
        at = extent.offset - start
        if extent.nbytes > SMALL:
            near, at = self.file.read(extent.offset, extent.nbytes), 0
        elif at < 0 or at + extent.nbytes > len(near):
            # A file that is far away keeps what it has read by itself.
            ahead = extent.nbytes if self.file.far else min(AHEAD, self.file.size - extent.offset)
            near, at = self.file.read(extent.offset, ahead), 0
            self._near = extent.offset, near
        return near[at : at + extent.nbytes]


_TOKENS = count()
