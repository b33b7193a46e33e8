"""CRC-32 as in zip: of one buffer, of concatenated buffers, of many extents of a file at once.

Uses isal, which is several times as fast as zlib; falls back to zlib if isal is not installed. Both release the GIL.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, reduce
from itertools import chain, pairwise, repeat
from operator import xor
from typing import TYPE_CHECKING, Any

from ._file import PORTION, THREADS, WAITING, File, Span, fetch, spread

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]

try:
    from isal.isal_zlib import crc32 as _crc32
except ImportError:
    _crc32 = zlib.crc32
# The library that computes checksums: isal, or zlib, which is several times slower.
CHECKSUMS = "isal" if _crc32 is not zlib.crc32 else "zlib"

# Bytes that one thread processes at a time.
PIECE = 4 << 20
# Smaller extents are read in batches by one thread; more threads would compete for the GIL.
SMALL = 16 << 10
BATCH = 4096
# From this many extents of equal length on, gathering them with NumPy is quicker than a view of each.
ALIKE = 16
POLYNOMIAL = 0xEDB88320
ONES = 0xFFFFFFFF


def crc32(data: Any, start: int = 0) -> int:
    """Return the CRC-32 of `data`, continuing from `start`, the CRC-32 of the bytes before it."""
    return _crc32(data, start)


def crc32s(buffers: Iterable[Any]) -> list[int]:
    """Return the CRC-32 of each buffer."""
    return list(map(_crc32, buffers, repeat(0)))


def combine(first: int, second: int, nbytes: int) -> int:
    """Return the CRC-32 of two concatenated runs of bytes from theirs; `nbytes` is the length of the second.

    >>> combine(crc32(b"abc"), crc32(b"defg"), 4) == crc32(b"abcdefg")
    True
    """
    # The CRC-32 of no bytes is 0 and leaves what follows unchanged: the case of the first piece of every tensor.
    return _multiply(_power(nbytes), first) ^ second if first else second


class ScatteredSum:
    """The CRC-32 of bytes of which this process has only some runs, given in ascending order, as a share.

    Without its initial and final inversion CRC-32 is linear: the CRCs of the runs, each with zeros in place of the other
    bytes, add up (XOR) to that of the whole, whichever process has which run.

    >>> shares = [ScatteredSum(), ScatteredSum()]
    >>> shares[0].add(0, b"ab"), shares[1].add(2, b"c"), shares[0].add(3, b"d")
    (None, None, None)
    >>> whole_sum([share.closed(4) for share in shares], 4) == crc32(b"abcd")
    True
    """

    def __init__(self) -> None:
        self._sum = self._stop = 0

    def add(self, start: int, data: Any) -> None:
        """Add the bytes at `start`, which is not before the end of the previous run."""
        if start > self._stop and self._sum:
            self._sum = _multiply(_power(start - self._stop), self._sum)
        self._sum = _crc32(data, self._sum ^ ONES) ^ ONES
        self._stop = start + len(data)

    def closed(self, nbytes: int) -> int:
        """Return the share of a whole of `nbytes` bytes."""
        return _multiply(_power(nbytes - self._stop), self._sum) if self._sum else 0


def whole_sum(shares: Iterable[int], nbytes: int) -> int:
    """Return the CRC-32 of `nbytes` bytes from the shares of runs that cover each of them once."""
    zeros = _multiply(_power(nbytes), ONES) ^ ONES
    return reduce(xor, shares, zeros)


def checksums(file: File, extents: Sequence[tuple[int, int]]) -> list[int]:
    """Return the CRC-32 of each extent (offset, bytes) of a file; large ones are split, and all are spread over
    threads.
    """
    piece, threads = (PORTION, WAITING) if file.far else (PIECE, THREADS)
    small = [extent for extent in extents if extent[1] <= SMALL]
    large = [extent for extent in extents if extent[1] > SMALL]

    def take(number: int, start: int, nbytes: int) -> int:
        return _of_piece(file, large[number][0] + start, nbytes)

    of_large = iter(_in_pieces([nbytes for _, nbytes in large], piece, threads, take))
    batch = min(BATCH, PIECE // max([1, *(nbytes for _, nbytes in small)]))
    of_small = chain.from_iterable(
        map(_crc32, fetch(file, small[at : at + batch]), repeat(0)) for at in range(0, len(small), batch)
    )
    results = [next(of_small if nbytes <= SMALL else of_large) for _, nbytes in extents] if large else list(of_small)
    file.check_unchanged()
    return results


def _in_pieces(sizes: Sequence[int], piece: int, threads: int, take: Callable[[int, int, int], int]) -> list[int]:
    """Return the CRC-32 of runs of bytes of these sizes, combined from those that `take(number, start, nbytes)` returns for
    pieces of them, on several threads.
    """
    pieces = [(n, at) for n, size in enumerate(sizes) for at in range(0, size, piece)]
    found = [0] * len(pieces)

    def run(place: int) -> None:
        n, at = pieces[place]
        found[place] = take(n, at, min(piece, sizes[n] - at))

    spread(run, range(len(pieces)), threads)
    results = [0] * len(sizes)
    for (n, at), crc in zip(pieces, found):
        results[n] = combine(results[n], crc, min(piece, sizes[n] - at))
    return results


def checksums_of(
    views: Sequence[memoryview], arrive: Callable[[int, int, memoryview], None] | None = None
) -> list[int]:
    """Return the CRC-32 of each view of memory; large ones are split and spread over threads.

    `arrive(number, start, piece)`, if given, is called before each piece of a large view is read, and fills it.
    """
    large = [n for n, view in enumerate(views) if len(view) > SMALL]

    def take(place: int, start: int, nbytes: int) -> int:
        piece = views[large[place]][start : start + nbytes]
        if arrive is not None:
            arrive(large[place], start, piece)
        return _crc32(piece, 0)

    of_large = iter(_in_pieces([len(views[n]) for n in large], PIECE, THREADS, take))
    return [_crc32(view, 0) if len(view) <= SMALL else next(of_large) for view in views]


def read_checked(file: File, spans: Sequence[Span]) -> list[int]:
    """Fill the spans and return the CRC-32 of each, computed while the bytes are in the processor's cache."""
    views = [span.into for span in spans]
    if file.far:
        file.read_into(spans)
        return checksums_of(views)
    file.read_into([span for span in spans if len(span.into) <= SMALL])
    return checksums_of(views, lambda n, at, piece: file.read_into([Span(spans[n].offset + at, piece)]))


def checksums_within(memory: memoryview, places: Numbers, sizes: Numbers) -> Numbers:
    """Return the CRC-32 of many runs of bytes in memory, which begin at `places`."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    found = np.zeros(len(places), np.int64)
    single: list[int] = []
    raw = np.frombuffer(memory, np.uint8)
    for size, which in grouped(sizes):
        if len(which) < ALIKE or not 0 < size <= SMALL:
            single += which.tolist()
            continue
        windows = sliding_window_view(raw, size)
        step = max(1, PIECE // size)
        for some in (which[at : at + step] for at in range(0, len(which), step)):
            rows: list[bytes] = windows[places[some]].view(f"V{size}")[:, 0].tolist()
            found[some] = list(map(_crc32, rows))
    if single:
        found[single] = checksums_of([memory[places[n] : places[n] + sizes[n]] for n in single])
    return found


def _of_piece(file: File, offset: int, nbytes: int) -> int:
    """Return the CRC-32 of a piece of a file, read in portions that stay in the processor's cache."""
    crc = 0
    for at in range(offset, offset + nbytes, PORTION):
        crc = _crc32(file.read(at, min(PORTION, offset + nbytes - at)), crc)
    return crc


@lru_cache(maxsize=1024)
def _power(nbytes: int) -> int:
    """Return x^(8·nbytes) modulo the polynomial, as in zlib's crc32_combine. Cached, because most pieces have the same
    length.
    """
    power = 1 << 31
    square = 1 << 23
    while nbytes:
        if nbytes & 1:
            power = _multiply(square, power)
        square = _square(square)
        nbytes >>= 1
    return power


@lru_cache(maxsize=128)
def _square(value: int) -> int:
    return _multiply(value, value)


def _multiply(a: int, b: int) -> int:
    """Return the product of two polynomials over GF(2), bit-reflected, modulo that of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product


def grouped(values: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Yield each distinct value with its positions, in order of value.

    >>> [(value, where.tolist()) for value, where in grouped(np.array([4, 1, 4]))]
    [(1, [1]), (4, [0, 2])]
    """
    import numpy as np

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    borders = [0, *(np.flatnonzero(np.diff(ordered)) + 1).tolist(), len(values)]
    for start, stop in pairwise(borders if len(values) else ()):
        yield int(ordered[start]), order[start:stop]
