"""Open paths, URLs and file objects as a File; recognise URLs, and hide their secrets.

User name and password precede the host, signatures and tokens are in the query; the path is shown unchanged.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import FileChangedError, UnknownFormatError
from ._file import File, Span, check_inside
from ._local import LocalFile

# `https://host/file`; fsspec allows chains: `simplecache::s3://bucket/file`.
BEGINS = re.compile(r"(?:[A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://")
LINK = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/?#\s'\"]*@)?(?P<path>[^?\s'\"]*)(?P<query>\?[^\s'\"]*)?")
HIDDEN = "***"


def is_url(path: Any) -> bool:
    """Return whether a path is a URL or a chain of URLs, as opposed to a local path."""
    return isinstance(path, str) and BEGINS.match(path) is not None


def redacted(text: str) -> str:
    """Return the URL, or a text with URLs in it, without secrets.

    >>> redacted("https://me:secret@host/model.pt?X-Amz-Signature=0123abcd")
    'https://***@host/model.pt?***'
    """
    return LINK.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if found["user"] else ""
    query = f"?{HIDDEN}" if found["query"] else ""
    return f"{found['scheme']}{user}{found['path']}{query}"


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


# The form of a model name on the Hugging Face Hub, `owner/name`, as opposed to a path with a suffix of letters.
REPOSITORY = re.compile(r"[\w-][\w.-]*/(?!.*\.[A-Za-z]+\Z)[\w-][\w.-]*")


def open(source: Any) -> File:
    """Return the File for a path, a URL, a seekable binary file object or a File.

    Raises OSError if the path or URL cannot be opened, UnknownFormatError if it is not a regular file,
    MissingDependencyError if fsspec, which opens URLs, is not installed, TypeError if `source` has another type.

    >>> import io
    >>> open(io.BytesIO(b"abc")).read(1, 2)
    b'bc'
    """
    if is_url(source):
        from ._remote import RemoteFile

        return RemoteFile(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            return LocalFile(source)
        except FileNotFoundError as error:
            if isinstance(source, str) and REPOSITORY.fullmatch(source) and not os.path.isdir(os.path.dirname(source)):
                error.strerror = f"{error.strerror}; files on the Hugging Face Hub are opened as hf://{source}/FILE"
            raise
    if hasattr(source, "check_unchanged"):
        file: File = source
        return file
    if not hasattr(source, "read") or not hasattr(source, "seek") or not _seekable(source):
        raise TypeError(f"a path or a seekable binary file object is expected, not {type(source).__name__}")
    if isinstance(source.read(0), str):
        raise TypeError('the file object returns text; open it in binary mode ("rb")')
    return ObjectFile(source)


def _seekable(stream: Any) -> bool:
    return bool(stream.seekable()) if hasattr(stream, "seekable") else hasattr(stream, "tell")
