"""The content of a file to be written: parts in order, with sizes known before any byte is produced."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from ._checksum import crc32

# Bytes that are checksummed and then written while they are in the cache.
PIECE = 1 << 18


class Part(Protocol):
    """A run of the file's bytes. This is its whole surface.

    Attributes:
        nbytes: its length.
        last: it depends on the other parts (their checksums), and is requested after all of them.
    """

    @property
    def nbytes(self) -> int: ...

    @property
    def last(self) -> bool: ...

    def chunks(self) -> Iterable[memoryview]:
        """Yield its bytes in order. A chunk must stay unchanged until the part is complete, because writes may be
        delayed.
        """


class Frame(NamedTuple):
    """A Part made by one call, after all parts before it are complete (all others, if `last`)."""

    nbytes: int
    make: Callable[[], Any]
    last: bool = False

    def chunks(self) -> Iterator[memoryview]:
        made = memoryview(self.make()).cast("B")
        if len(made) != self.nbytes:
            raise ValueError(f"a part has {len(made)} bytes, but {self.nbytes} were announced")
        yield made


class Payload:
    """A Part given as views of existing memory.

    `tell` is called with its CRC-32 when it is complete. `of` is the key of its content if several processes may have to
    write it together, each the bytes that it has; then it is complete without `chunks` when they call `tell`.
    """

    last = False

    def __init__(
        self,
        nbytes: int,
        views: Callable[[], Iterable[memoryview]],
        tell: Callable[[int], object] = lambda crc: None,
        of: Hashable = None,
    ) -> None:
        self.nbytes = nbytes
        self.tell = tell
        self.of = of
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
            raise ValueError(f"a payload has {done} bytes, but {self.nbytes} were announced")
        self.tell(crc)
