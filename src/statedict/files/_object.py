"""A caller's binary file object, read by seeking from its current position; it is never closed here."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import FileChangedError, UnknownFormatError
from ._file import Span, check_inside
from ._local import LocalFile


class ObjectFile:
    """The File of a seekable binary file object, from its current position to its end."""

    far = False

    def __init__(self, stream: Any) -> None:
        self.name = _name(stream)
        self._stream = stream
        self._lock = threading.Lock()
        self._start = stream.tell()
        self.size = _end(stream) - self._start
        stream.seek(self._start)
        if not self.size and self._start:
            raise UnknownFormatError(
                "the file object is positioned at its end", file=self.name, hint="call seek(0) before reading it"
            )

    def read(self, offset: int, nbytes: int) -> bytes:
        check_inside(self, offset, nbytes)
        into = bytearray(nbytes)
        self.read_into([Span(offset, memoryview(into))])
        return bytes(into)

    def read_into(self, spans: Sequence[Span]) -> None:
        for offset, into in spans:
            check_inside(self, offset, len(into))
        with self._lock:
            for offset, into in sorted(spans, key=lambda span: span.offset):
                self._stream.seek(self._start + offset)
                self._fill(into)

    def mapped(self) -> None:
        return None

    def beside(self, name: str) -> LocalFile | None:
        """Return a file next to the one the object is named after, if that exists."""
        return LocalFile(os.path.join(os.path.dirname(self.name), name)) if os.path.isfile(self.name) else None

    def check_unchanged(self) -> None:
        with self._lock:
            if _end(self._stream) != self._start + self.size:
                raise FileChangedError(self.name, "its size has changed")

    def close(self, at: int = 0) -> None:
        """Leave the caller's file object open, positioned at byte `at` of what was read."""
        if not getattr(self._stream, "closed", False):
            self._stream.seek(self._start + at)

    def _fill(self, into: memoryview) -> None:
        while into:
            if hasattr(self._stream, "readinto"):
                got = self._stream.readinto(into)
            else:
                part = self._stream.read(len(into))
                got = len(part)
                into[:got] = part
            if not got:
                raise FileChangedError(self.name, "it is shorter now")
            into = into[got:]


def _end(stream: Any) -> int:
    """Return the position of the end, using `tell` as PyTorch does: the result of `seek` is missing or wrong in some
    classes (`mmap.mmap` before Python 3.13, torch.distributed.checkpoint's views of part of a file).
    """
    stream.seek(0, 2)
    end: int = stream.tell()
    return end


def _name(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else f"<{type(stream).__name__}>"
