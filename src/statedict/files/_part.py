"""What a file that is to be written is made of: parts in order, whose sizes are known before any byte is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from ._checksum import crc32

# Pieces that are checksummed, and then written while they are in the cache.
PIECE = 1 << 18


class Part(Protocol):
    """A run of the file's bytes. This is its whole surface.

    Attributes:
        nbytes: how many.
        last: it is made of what the others were (their checksums), and asked for after all of them.
    """

    @property
    def nbytes(self) -> int: ...

    @property
    def last(self) -> bool: ...

    def chunks(self) -> Iterable[memoryview]:
        """Its bytes in order. A chunk stays as it is until the part is at its end: its writing may wait for what follows."""


class Frame(NamedTuple):
    """A Part that is made in one go, when all parts before it are at their end (all others, if `last`)."""

    nbytes: int
    make: Callable[[], Any]
    last: bool = False

    def chunks(self) -> Iterator[memoryview]:
        made = memoryview(self.make()).cast("B")
        if len(made) != self.nbytes:
            raise ValueError(f"a part of {len(made)} bytes was planned as {self.nbytes}")
        yield made


class Payload:
    """A Part that comes in views of somebody's memory; `crc` is its CRC-32 once it is at its end."""

    last = False

    def __init__(self, nbytes: int, views: Callable[[], Iterable[memoryview]]) -> None:
        self.nbytes = nbytes
        self.crc = 0
        self._views = views

    def chunks(self) -> Iterator[memoryview]:
        crc = done = 0
        for view in self._views():
            for start in range(0, len(view), PIECE):
                chunk = view[start : start + PIECE]
                crc = crc32(chunk, crc)
                done += len(chunk)
                yield chunk
        if done != self.nbytes:
            raise ValueError(f"a payload of {done} bytes was planned as {self.nbytes}")
        self.crc = crc
