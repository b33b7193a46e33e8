"""Checksums of a file of which each rank reads a part: each computes those of its ranges, and all ranks combine them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from statedict.errors import StateDictError
from statedict.files import Range, Shares, crc32, shares, whole
from statedict.state import Shareable, Storage, by_source


class Sums(NamedTuple):
    """A rank's contribution: a digest of the list of ranges of all ranks, and the CRC-32 of each of its own."""

    digest: int
    crcs: list[int]


class SharedChecksums:
    """The checksums that several ranks verify together, as a context manager around the reading.

    While it is entered, reading a part of one of these storages does not verify the whole storage. Before the vote, `sums`
    gives this rank's payload; after it, `compare` gets those of all ranks. Each rank verifies as usual, by itself, what
    every rank reads whole, what is small and not tiled, compressed, or not in native byte order; a storage without a
    checksum is not verified.

    `reads`: storages with the ranges (start, stop) that each of the ranks reads, in the same order on every rank, including
    storages of which this rank reads nothing. A storage may be there several times, for each tensor in it. `index`: which
    of the ranks this one is.
    """

    def __init__(self, reads: Iterable[tuple[Storage, Sequence[Iterable[Range]]]], index: int) -> None:
        self._index = index
        self._shared: list[tuple[Storage, Shares]] = []
        for storage, ranges in _merged(reads):
            divided = shares(storage.nbytes, ranges)
            if divided is not None and isinstance(storage.source, Shareable) and storage.source.shareable(storage):
                self._shared.append((storage, divided))
        plan = [(storage.nbytes, divided) for storage, divided in self._shared]
        self._digest = crc32(repr(plan).encode())

    def __enter__(self) -> SharedChecksums:
        for arriving in (True, False):
            for some in by_source(storage for storage, divided in self._shared if divided.arriving is arriving):
                _source(some).share(some, arriving=arriving)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for some in by_source(storage for storage, _ in self._shared):
            _source(some).unshare(some)

    def sums(self) -> Sums:
        """The checksums of this rank's ranges; reads those that have not been read.

        Raises ChecksumError if tied tensors have different bytes there.
        """
        found: dict[Any, list[int]] = {}
        for some in by_source(storage for storage, _ in self._shared):
            keys = {storage.key for storage in some}
            ranges = [each for each in self._ranges(self._index) if each[0].key in keys]
            for (storage, _, _), crc in zip(ranges, _source(some).sums(ranges)):
                found.setdefault(storage.key, []).append(crc)
        return Sums(self._digest, [crc for storage, _ in self._shared for crc in found.get(storage.key, ())])

    def compare(self, payloads: Sequence[Sums | None]) -> None:
        """Raise ChecksumError if the bytes of a storage, together, do not match its checksum; `payloads`: of all ranks."""
        sums: dict[Any, list[tuple[int, int, int]]] = {}
        for index, payload in enumerate(payloads):
            if payload is None or payload.digest != self._digest:
                raise StateDictError(
                    f"process {index} of {len(payloads)} did not read the same tensors of the same file as this one: load "
                    "the same source with the same options on every rank"
                )
            for (storage, start, stop), crc in zip(self._ranges(index), payload.crcs):
                sums.setdefault(storage.key, []).append((start, stop, crc))
        for some in by_source(storage for storage, _ in self._shared):
            found = [(storage, crc) for storage in some for crc in whole(sums[storage.key])]
            _source(some).compare([storage for storage, _ in found], [crc for _, crc in found])

    def _ranges(self, index: int) -> list[tuple[Storage, int, int]]:
        """The ranges of one rank, in the order of its CRCs."""
        return [(storage, start, stop) for storage, divided in self._shared for start, stop in divided.ranges[index]]


def _source(storages: Sequence[Storage]) -> Shareable:
    return cast("Shareable", storages[0].source)


def _merged(
    reads: Iterable[tuple[Storage, Sequence[Iterable[Range]]]],
) -> Iterable[tuple[Storage, list[list[Range]]]]:
    """Each storage once, with all ranges of each rank."""
    merged: dict[Any, tuple[Storage, list[list[Range]]]] = {}
    for storage, ranges in reads:
        _, known = merged.setdefault(storage.key, (storage, [[] for _ in ranges]))
        for own, more in zip(known, ranges, strict=True):
            own += more
    return merged.values()
