"""A binary file object of the caller's, read by seeking from where it stands; never closed here."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import FileChangedError, UnknownFormatError
from ._file import Span, check_inside
from ._local import LocalFile


class ObjectFile:
    """The File that a seekable binary file object is, from its position to its end."""

    far = False

    def __init__(self, stream: Any) -> None:
        self.name = _name(stream)
        self._stream = stream
        self._turn = threading.Lock()
        self._start = stream.tell()
        self.size = _end(stream) - self._start
        stream.seek(self._start)
        if not self.size and self._start:
            raise UnknownFormatError(
                "the file object stands at its end", file=self.name, hint="seek(0) before it is read"
            )

    def read(self, offset: int, nbytes: int) -> bytes:
        check_inside(self, offset, nbytes)
        into = bytearray(nbytes)
        self.read_into([Span(offset, memoryview(into))])
        return bytes(into)

    def read_into(self, spans: Sequence[Span]) -> None:
        for offset, into in spans:
            check_inside(self, offset, len(into))
        with self._turn:
            for offset, into in sorted(spans, key=lambda span: span.offset):
                self._stream.seek(self._start + offset)
                self._fill(into)

    def mapped(self) -> None:
        return None

    def beside(self, name: str) -> LocalFile | None:
        """That of the file that the object says it is, if it is one."""
        return LocalFile(os.path.join(os.path.dirname(self.name), name)) if os.path.isfile(self.name) else None

    def check_unchanged(self) -> None:
        with self._turn:
            if _end(self._stream) != self._start + self.size:
                raise FileChangedError(self.name, "its size is another now")

    def close(self, at: int = 0) -> None:
        """The caller's file object stays open, and stands at byte `at` of what was read."""
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
                raise FileChangedError(self.name, "it ends earlier now")
            into = into[got:]


def _end(stream: Any) -> int:
    """The position of the end. From `tell`, as PyTorch has it: what `seek` returns is missing or wrong in some classes
    (`mmap.mmap` before Python 3.13, torch.distributed.checkpoint's views of a part of a file)."""
    stream.seek(0, 2)
    end: int = stream.tell()
    return end


def _name(stream: Any) -> str:
    name = getattr(stream, "name", None)
    return name if isinstance(name, str) else f"<{type(stream).__name__}>"
