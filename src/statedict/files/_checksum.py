"""CRC-32, as zip has it: of one piece, of pieces put together, of many extents of a file at once.

isal's is 5 times as fast as zlib's (28 against 5.8 GB/s a thread, and the GIL is released for both); where it is not
installed zlib's does.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ._file import File, Span
from ._parallel import spread

try:
    from isal.isal_zlib import crc32 as _crc32
except ImportError:
    _crc32 = zlib.crc32

# Pieces that one thread takes at a time, and that are read at once where the file cannot be mapped.
PIECE = 4 << 20
POLYNOMIAL = 0xEDB88320


def crc32(data: Any, start: int = 0) -> int:
    """The CRC-32 of bytes, going on from `start`, the CRC-32 of what came before them."""
    return _crc32(data, start)


def combine(first: int, second: int, nbytes: int) -> int:
    """The CRC-32 of two runs of bytes from theirs; `nbytes` is the length of the second.

    >>> combine(crc32(b"abc"), crc32(b"defg"), 4) == crc32(b"abcdefg")
    True
    """
    # first · x^(8·nbytes) modulo the polynomial, as zlib's crc32_combine: 2 steps for each bit of nbytes.
    power = 1 << 31
    square = 1 << 23
    while nbytes:
        if nbytes & 1:
            power = _multiply(square, power)
        square = _square(square)
        nbytes >>= 1
    return _multiply(power, first) ^ second


def checksums(file: File, extents: Sequence[tuple[int, int]]) -> list[int]:
    """The CRC-32 of each extent (offset, bytes) of a file; large ones in pieces, all spread over threads."""
    results = [0] * len(extents)
    pieces: list[tuple[int, int, int]] = []
    small: list[tuple[int, int, int]] = []
    for index, (offset, nbytes) in enumerate(extents):
        if nbytes <= PIECE // 4:
            small.append((index, offset, nbytes))
        else:
            pieces += [(index, at, min(PIECE, offset + nbytes - at)) for at in range(offset, offset + nbytes, PIECE)]
    batches = [[piece] for piece in pieces]
    batches += [small[at : at + 4096] for at in range(0, len(small), 4096)]
    found: dict[tuple[int, int], int] = {}
    mapped = file.view()

    def take(batch: list[tuple[int, int, int]]) -> None:
        for index, offset, nbytes in batch:
            found[index, offset] = _crc32(_bytes(file, mapped, offset, nbytes), 0)

    spread(take, batches)
    for index, offset, _ in small:
        results[index] = found[index, offset]
    for index, offset, nbytes in pieces:
        results[index] = combine(results[index], found[index, offset], nbytes)
    file.check_unchanged()
    return results


def _bytes(file: File, mapped: memoryview | None, offset: int, nbytes: int) -> memoryview:
    if mapped is not None:
        return mapped[offset : offset + nbytes]
    into = memoryview(bytearray(nbytes))
    file.read_into([Span(offset, into)])
    return into


@lru_cache(maxsize=128)
def _square(value: int) -> int:
    return _multiply(value, value)


def _multiply(a: int, b: int) -> int:
    """The product of two polynomials over GF(2), bit-reflected, modulo CRC-32's."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product
