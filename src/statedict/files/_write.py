"""Write the parts of a file, in order, to a path (atomically) or to a file object.

The sizes of the parts are known before any byte is produced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby
from typing import Any, NamedTuple, Protocol

from ._atomic import Replacement, check_durability
from ._checksum import combine, crc32
from ._open import local_path
from ._output import Durable
from .stores._open import open_object
from .stores._upload import Upload
from .system import SYSTEM, System

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
        """Yield its bytes in order. A chunk must stay unchanged until the file is written, because writes may be delayed."""


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

    `tell` is called with its CRC-32 when it is complete; after `chunks`, `crc32` is that, too. `of` is the key of its
    content if several processes may have to write it together, each the bytes that it has; then it is complete without
    `chunks` when they call `tell`.
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
        self.crc32 = 0
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
        self.crc32 = crc
        self.tell(crc)


# How `fill` treats a part.
ORDINARY, LAST, SKIPPED = range(3)


# Writes the parts of a file into it.
Fill = Callable[[Replacement, Sequence[Part], Durable], None]


def fill(new: Replacement, parts: Sequence[Part], durable: Durable, skip: Collection[int] = ()) -> None:
    """Write the parts, except those whose ids are in `skip`; those made from the others come last."""
    offset = 0
    late: list[tuple[int, Part]] = []
    for kind, together in groupby(parts, lambda part: LAST if part.last else SKIPPED if id(part) in skip else ORDINARY):
        start, run = offset, list(together)
        offset += total_of(run)
        if kind == LAST:
            late += zip(accumulate((part.nbytes for part in run), initial=start), run)
        elif kind == ORDINARY:
            new.write(start, chain.from_iterable(part.chunks() for part in run), durable)
    for start, part in late:
        new.write(start, part.chunks(), durable)


def write(
    target: Any, parts: Sequence[Part], *, durable: Durable = True, system: System = SYSTEM, fill: Fill = fill
) -> None:
    """Write the parts, one after the other, to a path, to the URL of an object in a store, or to a binary file object.

    An object is uploaded while its parts are produced, and is visible when it is complete. A path is replaced atomically.
    `durable` says what is flushed to the disk before the call returns:

    - `"full"` (or True): the file, then its name. After a power failure the new file is there.
    - `"rename"`: the file only. After a power failure either the old or the new file is there, complete.
    - `"none"` (or False): nothing. A killed process leaves the old or the new file, complete; a power failure may lose both.

    Raises DiskFullError if there is not enough space, SaveError if the path is not a regular file or the URL is not one of a
    store, RemoteError if the store fails, OSError for other errors of the system; the old file is then unchanged.

    `fill` writes the parts into a new file: see `JointWriter` for several processes that do so together (not to a URL).
    """
    check_durability(durable)
    local = local_path(target) if isinstance(target, (str, os.PathLike)) else None
    if local is not None:
        with Replacement(local, total_of(parts), system) as new:
            fill(new, parts, durable)
            new.commit(durable)
    elif isinstance(target, (str, os.PathLike)):
        with Upload(*open_object(os.fspath(target))) as stream:
            _stream(stream, parts)
    elif hasattr(target, "write"):
        _stream(target, parts)
    else:
        raise TypeError(
            f"a path or a binary file object is expected, not {type(target).__name__}: pass the object first"
        )


class _Summed:
    """A Part whose CRC-32 is known after `chunks`."""

    def __init__(self, part: Part) -> None:
        self.nbytes, self.last = part.nbytes, part.last
        self.crc32 = 0
        self._part = part

    def chunks(self) -> Iterator[memoryview]:
        crc = 0
        if isinstance(self._part, Payload):
            yield from self._part.chunks()
            crc = self._part.crc32
        else:
            for chunk in self._part.chunks():
                crc = crc32(chunk, crc)
                yield chunk
        self.crc32 = crc


def write_summed(target: Any, parts: Sequence[Part], *, durable: Durable = True) -> int:
    """Write the parts as `write` does, and return the CRC-32 of the whole file. Its size is `total_of(parts)`.

    It is that of the file without reading it: the parts follow each other without gaps, each is written by this process
    only and once (one that is made last is not written before), and a chunk is summed when it is handed over to be written,
    after which it must not change. Writes that fail raise. Memory that another thread changes nevertheless does not match
    the sum, as it does not match the checksums inside the file, so the damage is found.

    >>> import io
    >>> write_summed(io.BytesIO(), [Frame(2, lambda: b"ab"), Frame(1, lambda: b"c")]) == crc32(b"abc")
    True
    """
    summed = [_Summed(part) for part in parts]
    write(target, summed, durable=durable)
    total = 0
    for part in summed:
        total = combine(total, part.crc32, part.nbytes)
    return total


def total_of(parts: Sequence[Part]) -> int:
    """Return the size of the file that the parts form."""
    return sum(part.nbytes for part in parts)


def _stream(stream: Any, parts: Sequence[Part]) -> None:
    if any(part.last for part in parts[:-1]):
        # A part made last may come first in the file, and a stream cannot seek back: produce the others once
        # beforehand.
        for part in parts:
            if not part.last:
                for _ in part.chunks():
                    pass
    for part in parts:
        if isinstance(stream, Upload):
            stream.take(part.chunks())
            continue
        for chunk in part.chunks():
            _write_all(stream, chunk)
    if hasattr(stream, "flush"):
        stream.flush()


def _write_all(stream: Any, chunk: memoryview) -> None:
    while chunk:
        done = stream.write(chunk)
        # Raw streams may write less; most others return the whole length, and some None.
        chunk = chunk[done:] if isinstance(done, int) else chunk[len(chunk) :]
