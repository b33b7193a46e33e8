"""Open paths, URLs and file objects as a File; recognise URLs, and hide their secrets.

Only regular local files are opened (a FIFO would block for ever, /dev/zero never ends), and only one descriptor of a file
is used, so the file that was checked is the file that is read. Size and modification time are compared again after every
batch of reads, and before the file is mapped. Reading a mapping of a file that was truncated meanwhile kills the process
(SIGBUS), so a file is mapped only on request. Replacing a file, as the writer here does, is always safe.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from ..errors import FileChangedError, UnknownFormatError
from ._file import File, Span, VectoredRead, check_inside, plan_reads, spread
from .system import MUST_CLOSE, lease, open_to_read, path_in_url, pread, preadv

# For fewer bytes, starting a second thread costs more than it saves.
PARALLEL = 8 << 20
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def kind_of(mode: int) -> str:
    """Describe a file that is not regular."""
    return KINDS.get(stat.S_IFMT(mode), "a special file")


class LocalFile:
    """The File at a path; raises OSError if it cannot be opened, UnknownFormatError if it is not a regular file."""

    far = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        # The descriptor, until the file is closed. `pop` gives it to only one of several threads that close the file: a
        # second `os.close` could close another file that got the same number.
        self._fds = [_open(self.name)]
        status = os.fstat(self._descriptor())
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise _not_regular(self.name, status.st_mode)
        self.size = status.st_size
        self._opened = _stamp(status)
        self._mapped: mmap.mmap | bytearray | None = None

    def read(self, offset: int, nbytes: int) -> bytes:
        check_inside(self, offset, nbytes)
        found = pread(self._descriptor(), nbytes, offset)
        if len(found) == nbytes:
            return found
        # One system call returns at most 2 GB, and macOS refuses buffers of more.
        into = memoryview(bytearray(nbytes))
        self.read_into([Span(offset, into)])
        return bytes(into)

    def read_into(self, spans: Sequence[Span]) -> None:
        total = 0
        for offset, into in spans:
            check_inside(self, offset, len(into))
            total += len(into)
        self._descriptor()
        calls = plan_reads(spans)
        if total >= PARALLEL:
            spread(self._fill, calls)
        else:
            for call in calls:
                self._fill(call)
        self.check_unchanged()

    def mapped(self) -> memoryview:
        if self._mapped is None:
            self.check_unchanged()
            self._mapped = (
                mmap.mmap(self._descriptor(), self.size, access=mmap.ACCESS_COPY) if self.size else bytearray()
            )
        # Not a view that threads share: without the GIL, slicing it in several threads releases it (Python 3.14).
        return memoryview(self._mapped)

    def lease(self, until: ExitStack) -> Callable[[], bool] | None:
        return lease(self._descriptor(), until)

    def beside(self, name: str) -> LocalFile:
        return LocalFile(os.path.join(os.path.dirname(self.name), name))

    def check_unchanged(self) -> None:
        now = _stamp(os.fstat(self._descriptor()))
        if now != self._opened:
            what = "its size" if now[0] != self._opened[0] else "its modification time"
            raise FileChangedError(self.name, f"{what} has changed")

    def close(self, at: int = 0) -> None:
        self._mapped = None
        with suppress(IndexError):
            os.close(self._fds.pop())

    def __del__(self) -> None:
        if getattr(self, "_fds", None):
            self.close()

    def __reduce__(self) -> NoReturn:
        # A copy would close this file's descriptor, or by then another file's.
        raise TypeError(f"{self.name} is an open file, which cannot be copied or pickled: open it again there")

    def _descriptor(self) -> int:
        try:
            return self._fds[0]
        except IndexError:
            raise ValueError(f"{self.name} has been closed; open it again") from None

    def _fill(self, call: VectoredRead) -> None:
        offset, left, buffers = call
        while left:
            got = preadv(self._descriptor(), buffers, offset)
            if not got:
                raise FileChangedError(self.name, f"it now ends at byte {offset:,}")
            left -= got
            offset += got
            if left:
                buffers = after(buffers, got)


def _open(path: str) -> int:
    # Windows does not open directories.
    if MUST_CLOSE and os.path.isdir(path):
        raise _not_regular(path, stat.S_IFDIR)
    return open_to_read(path)


def _not_regular(path: str, mode: int) -> UnknownFormatError:
    hint = "pass the path of a file in it" if stat.S_ISDIR(mode) else "copy its content to a regular file first"
    return UnknownFormatError(f"this is {kind_of(mode)}, not a regular file", file=path, hint=hint)


def after(buffers: Sequence[memoryview], done: int) -> list[memoryview]:
    """Return the buffers without their first `done` bytes."""
    left = list(buffers)
    while left and done >= len(left[0]):
        done -= len(left.pop(0))
    if done:
        left[0] = left[0][done:]
    return left


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


# `https://host/file`; fsspec allows chains: `simplecache::s3://bucket/file`.
# One letter is a drive of Windows (`C://folder`).
BEGINS = re.compile(r"(?:[A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]+://")
LINK = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/?#\s'\"]*@)?(?P<path>[^?\s'\"]*)(?P<query>\?[^\s'\"]*)?")
HIDDEN = "***"


def is_url(path: Any) -> bool:
    """Return whether a path is a URL or a chain of URLs, as opposed to a local path."""
    return isinstance(path, str) and BEGINS.match(path) is not None


def local_path(path: str | os.PathLike[str]) -> str | os.PathLike[str] | None:
    """Return the local path that a path or a `file://` URL means; None for the URL of anything else.

    >>> local_path("file:///tmp/a%20b"), local_path("s3://bucket/a")
    ('/tmp/a b', None)
    """
    if not is_url(path):
        return path
    parts = urlsplit(os.fspath(path))
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    return path_in_url(unquote(parts.path))


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
        name = getattr(stream, "name", None)
        self.name = name if isinstance(name, str) else f"<{type(stream).__name__}>"
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

    def lease(self, until: ExitStack) -> None:
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


def _remote(url: str) -> File:
    from .stores._open import is_in_store

    if is_in_store(url):
        from .stores._file import StoreFile

        return StoreFile(url)
    from ._remote import RemoteFile

    return RemoteFile(url)


# The form of a model name on the Hugging Face Hub, `owner/name`, as opposed to a path with a suffix of letters.
REPOSITORY = re.compile(r"[\w-][\w.-]*/(?!.*\.[A-Za-z]+\Z)[\w-][\w.-]*")


def open(source: Any) -> File:
    """Return the File for a path, a URL, a seekable binary file object or a File.

    Raises OSError if the path or URL cannot be opened (IsADirectoryError for the URL of a directory), UnknownFormatError if
    it is not a regular file, MissingDependencyError if fsspec, which opens URLs, is not installed, TypeError if `source`
    has another type.

    >>> import io
    >>> open(io.BytesIO(b"abc")).read(1, 2)
    b'bc'
    """
    local = local_path(source) if isinstance(source, (str, os.PathLike)) else None
    if local is None and is_url(source):
        return _remote(source)
    if local is not None:
        source = local
    if isinstance(source, (str, os.PathLike)):
        try:
            return LocalFile(source)
        except FileNotFoundError as error:
            if isinstance(source, str) and REPOSITORY.fullmatch(source) and not os.path.isdir(os.path.dirname(source)):
                error.strerror = f"{error.strerror}; models on the Hugging Face Hub are opened as hf://{source}"
            raise
    if hasattr(source, "check_unchanged"):
        file: File = source
        return file
    is_file = hasattr(source, "read") and hasattr(source, "seek")
    if not (is_file and (source.seekable() if hasattr(source, "seekable") else hasattr(source, "tell"))):
        raise TypeError(f"a path or a seekable binary file object is expected, not {type(source).__name__}")
    if isinstance(source.read(0), str):
        raise TypeError('the file object returns text; open it in binary mode ("rb")')
    return ObjectFile(source)
