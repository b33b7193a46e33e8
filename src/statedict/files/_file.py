"""The File protocol: a name, a size, and bytes at offsets. Independent of what the bytes mean.

Readers request many spans at once (`read_into`), so that a file can sort, merge and parallelise its reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import NamedTuple, Protocol

from ..errors import TruncatedError


class Span(NamedTuple):
    """Bytes `offset … offset + len(into)` of a file, to be read into `into` (writable, contiguous, format `B`)."""

    offset: int
    into: memoryview


class File(Protocol):
    """A source of bytes. `name` is for messages, `size` is in bytes; this is its whole surface."""

    name: str
    size: int

    @property
    def far(self) -> bool:
        """Whether each read takes a network round trip: readers then request only what they need, in large batches."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`; raise TruncatedError if the file does not have them."""

    def read_into(self, spans: Sequence[Span]) -> None:
        """Fill every destination, in any order."""

    def mapped(self) -> memoryview | None:
        """Return the whole file as memory, or None if it cannot be mapped. Changes to the memory stay in this process.

        Only for callers who asked for a mapping: reading a mapping of a file that was truncated meanwhile kills the
        process (SIGBUS), and rewriting the file in place changes the memory.
        """

    def beside(self, name: str) -> File | None:
        """Return the file with that plain name in the same folder; None if this file is not in a folder.

        Raises OSError if it cannot be opened.
        """

    def check_unchanged(self) -> None:
        """Raise FileChangedError if the file is not the one that was opened."""

    def close(self, at: int = 0) -> None:
        """Close the file; leave a caller's file object open, positioned at byte `at`. Views already returned stay
        valid.
        """


def check_inside(file: File, offset: int, nbytes: int) -> None:
    """Raise TruncatedError unless the file has `nbytes` bytes at `offset`."""
    if offset < 0 or nbytes < 0 or offset + nbytes > file.size:
        raise TruncatedError(
            f"{nbytes:,} bytes are needed here, but the file has only {file.size:,}", file=file.name, offset=offset
        )


def fetch(file: File, extents: Sequence[tuple[int, int]]) -> list[memoryview]:
    """Read many small extents (offset, bytes) in one batch.

    Raises TruncatedError if an extent is outside the file.
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
