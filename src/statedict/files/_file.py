"""A file as its readers see it: a name, a size, bytes at offsets. Knows nothing of what the bytes mean.

Readers ask for many spans at once (`read_into`), so that a file can sort, merge and spread its reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple, Protocol

from ..errors import TruncatedError


class Span(NamedTuple):
    """Bytes `offset … offset + len(into)` of a file, wanted in `into` (writable, contiguous, format `B`)."""

    offset: int
    into: memoryview


class File(Protocol):
    """Where bytes lie. `name` is for messages, `size` in bytes; the rest is its whole surface."""

    name: str
    size: int

    @property
    def far(self) -> bool:
        """Each read takes a round trip over a network: who reads asks for no more than is needed, and for much at once."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; raises TruncatedError where the file does not have them."""

    def read_into(self, spans: Sequence[Span]) -> None:
        """Fill every destination, in whatever order is quickest."""

    def mapped(self) -> memoryview | None:
        """The whole file as memory, or None if it cannot be mapped. Changes to the memory stay in this process.

        Only for callers who asked for a mapping: reading one of a file that was truncated meanwhile kills the process
        (SIGBUS), and a file that is rewritten in place changes the memory.
        """

    def beside(self, name: str) -> File | None:
        """The file of that plain name in the same folder; None where this one lies in none.

        Raises OSError where it cannot be opened.
        """

    def check_unchanged(self) -> None:
        """Raise FileChangedError where the file is no longer the one that was opened."""

    def close(self, at: int = 0) -> None:
        """Give the file back, a file object of the caller's standing at byte `at`; views that were handed out stay valid."""


def check_inside(file: File, offset: int, nbytes: int) -> None:
    """Raise TruncatedError unless the file has `nbytes` bytes at `offset`."""
    if offset < 0 or nbytes < 0 or offset + nbytes > file.size:
        raise TruncatedError(
            f"{nbytes:,} bytes are needed here, but the file ends after {file.size:,}", file=file.name, offset=offset
        )


def fetch(file: File, extents: Sequence[tuple[int, int]]) -> list[memoryview]:
    """The bytes of many small extents (offset, bytes), read in one batch.

    Raises TruncatedError if one lies outside the file.
    """
    if not extents:
        return []
    starts, sizes = zip(*extents)
    stops = list(map(add, starts, sizes))
    if min(starts) < 0 or min(sizes) < 0 or max(stops) > file.size:
        for offset, nbytes in extents:
            check_inside(file, offset, nbytes)
    block = memoryview(bytearray(sum(nbytes for _, nbytes in extents)))
    ends = accumulate(nbytes for _, nbytes in extents)
    places = [block[end - nbytes : end] for (_, nbytes), end in zip(extents, ends)]
    file.read_into([Span(offset, into) for (offset, _), into in zip(extents, places)])
    return places
