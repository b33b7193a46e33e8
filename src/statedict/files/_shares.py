"""Divide the checksum of an extent of bytes among several processes, and combine their results. This file does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ._checksum import combine

Range = tuple[int, int]
# Start and stop of a run of bytes, and its CRC-32.
Sum = tuple[int, int, int]

# Smaller extents are cheaper to verify whole, in each process, than to divide; and so are more runs than this to combine.
SMALL = 64 << 10
RUNS = 16


class Shares(NamedTuple):
    """For each process, the ranges of an extent of which it computes the CRC-32.

    Attributes:
        ranges: for each process, in order, without overlaps.
        arriving: they are the ranges that the process reads anyway.
    """

    ranges: list[list[Range]]
    arriving: bool


def shares(nbytes: int, reads: Sequence[Iterable[Range]]) -> Shares | None:
    """Divide the checksum of an extent of `nbytes` among processes; `reads` are the ranges (start, stop) that each reads.

    If these tile the extent, each process checksums what it reads (if several read the same range, each checksums its own
    copy). Otherwise the extent is divided into one contiguous range for each process, whether or not it reads any of it.
    None: each process that reads a part verifies the extent by itself, because all of them read it whole, or because it is
    small.

    >>> shares(8, [[(0, 4)], [(4, 8)]])
    Shares(ranges=[[(0, 4)], [(4, 8)]], arriving=True)
    >>> shares(1 << 20, [[(0, 10)], []])
    Shares(ranges=[[(0, 524288)], [(524288, 1048576)]], arriving=False)
    """
    runs = [list(_runs(ranges)) for ranges in reads]
    if all(run in ([], [(0, nbytes)]) for run in runs):
        return None
    distinct = sorted({run for each in runs for run in each})
    if max(map(len, runs)) <= RUNS and _is_tiling(distinct, nbytes):
        return Shares(runs, arriving=True)
    if nbytes <= SMALL:
        return None
    bounds = [nbytes * number // len(reads) for number in range(len(reads) + 1)]
    return Shares([[bound] for bound in pairwise(bounds)], arriving=False)


def joined(sums: Iterable[Sum]) -> Iterator[Sum]:
    """Combine the sums of runs that follow each other without a gap; a run that is there twice counts once.

    Runs that overlap otherwise are dropped, with those that they overlap.

    >>> from statedict.files import crc32
    >>> [(0, 4, crc32(b"abcd"))] == list(joined([(2, 4, crc32(b"cd")), (0, 2, crc32(b"ab"))]))
    True
    """
    last: Sum | None = None
    good = True
    for start, stop, crc in sorted(set(sums)):
        if last is not None and start < last[1]:
            last, good = (last[0], max(last[1], stop), 0), False
        elif last is not None and start == last[1] and good:
            last = last[0], stop, combine(last[2], crc, stop - start)
        else:
            if last is not None and good:
                yield last
            last, good = (start, stop, crc), True
    if last is not None and good:
        yield last


def whole(sums: Iterable[Sum]) -> list[int]:
    """Return the CRC-32 of an extent from those of the runs that tile it.

    A run for which processes report different CRCs gives several results, so that not all of them can be right.

    >>> from statedict.files import crc32
    >>> whole([(0, 2, crc32(b"ab")), (2, 4, crc32(b"cd"))]) == [crc32(b"abcd")]
    True
    """
    found: dict[Range, list[int]] = {}
    for start, stop, crc in sums:
        known = found.setdefault((start, stop), [])
        if crc not in known:
            known.append(crc)
    runs = sorted(found.items())
    results = []
    for version in range(max(len(crcs) for _, crcs in runs)):
        crc = 0
        for (start, stop), crcs in runs:
            crc = combine(crc, crcs[min(version, len(crcs) - 1)], stop - start)
        results.append(crc)
    return results


def _runs(ranges: Iterable[Range]) -> Iterator[Range]:
    """Merge ranges that overlap or follow each other without a gap; leave out empty ones."""
    first = last = 0
    for start, stop in sorted(ranges):
        if start > last or first == last:
            if last > first:
                yield first, last
            first = last = start
        last = max(last, stop)
    if last > first:
        yield first, last


def _is_tiling(runs: Sequence[Range], nbytes: int) -> bool:
    """Whether sorted runs follow each other from 0 to `nbytes`."""
    return [0, *(stop for _, stop in runs)] == [*(start for start, _ in runs), nbytes]
