"""The files of a folder, one after the other, as one File: so readers of archives can read an unpacked one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from ._file import File, Span, check_inside
from ._folder import Folder

# Tensors begin at multiples of this in an archive of torch.save, too.
ALIGNMENT = 64


class FileChain:
    """The File of several files of a folder, each of which begins at a multiple of 64.

    `read` returns zeros for the bytes between two files; `read_into` leaves them as they are. A file is opened when it is
    read. `sizes`: the size of each file in bytes, by its name in the folder.

    Attributes:
        starts: where each file begins.
    """

    far = False

    def __init__(self, folder: Folder, sizes: Mapping[str, int]) -> None:
        self.name = folder.path
        self.starts: list[int] = []
        self.size = 0
        for size in sizes.values():
            self.starts.append(self.size)
            self.size += -(-size // ALIGNMENT) * ALIGNMENT
        self._folder = folder
        self._files = list(sizes.items())

    def read(self, offset: int, nbytes: int) -> bytes:
        into = bytearray(nbytes)
        self.read_into([Span(offset, memoryview(into))])
        return bytes(into)

    def read_into(self, spans: Sequence[Span]) -> None:
        inside: dict[int, list[Span]] = {}
        for offset, into in spans:
            check_inside(self, offset, len(into))
            for number, span in self._parts(offset, into):
                inside.setdefault(number, []).append(span)
        for number, some in inside.items():
            self._folder.file(self._files[number][0]).read_into(some)

    def mapped(self) -> memoryview | None:
        return None

    def lease(self, until: ExitStack) -> None:
        return None

    def beside(self, name: str) -> File | None:
        return None

    def check_unchanged(self) -> None:
        """Do nothing but raise ValueError if the folder was closed: each file is checked when it is read."""
        self._folder.require_open()

    def close(self, at: int = 0) -> None:
        self._folder.close()

    def _parts(self, offset: int, into: memoryview) -> Iterator[tuple[int, Span]]:
        """Yield the parts of a span in each file."""
        stop = offset + len(into)
        for number in range(bisect_right(self.starts, offset) - 1, len(self.starts)):
            start = self.starts[number]
            if start >= stop:
                return
            low, high = max(offset, start), min(stop, start + self._files[number][1])
            if low < high:
                yield number, Span(low - start, into[low - offset : high - offset])
