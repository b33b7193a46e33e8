"""A file behind a URL, read by ranges: through fsspec (HTTP, the Hugging Face Hub and others), or from an object store.

Theory of operation. Each request costs a round trip, so requests are few and concurrent. The end of a file is read when
it is opened, because a zip has its directory there; a small file is read whole. Small reads fetch some bytes beyond
what is needed, which are cached. Batches are planned like those of a local file, with larger gaps, and run on more
threads than there are processors, since these only wait. The server's facts about the file (size, ETag, date) are
requested when it is opened, after every batch and after every large read; if they differ, the file was replaced. An object
store is asked for the bytes of the version that was opened, which needs no second request.
fsspec accepts any response over HTTP: another range, an endless one, one that decompresses to any size. Here the response
must be exactly the requested bytes of the file that was opened; no further byte is read, and a silent server times out.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from ..errors import FileChangedError, RemoteError
from ._attempts import FinalError, attempt, file_system, sibling
from ._file import PORTION, WAITING, Span, VectoredRead, check_inside, plan_reads, spread
from ._open import redacted

# Gaps of up to this many bytes are cheaper to read than a second request.
GAP = 64 << 10
# Bytes fetched by a small read, number of cached blocks, and size up to which a file is read whole when it is opened.
BLOCK = 64 << 10
KEPT = 8
WHOLE = 1 << 20
# Timeout in seconds for calls to stores not reached by plain HTTP; their packages retry by themselves.
LONGEST = 60
# Keys under which file systems report facts that identify a version of a file.
STAMPS = (
    *("size", "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "modified", "updated"),
    *("created", "generation", "VersionId", "version_id", "md5Hash", "content_md5", "Content-MD5", "Digest"),
)


class RemoteFile:
    """The File behind a URL; `name` is the URL without its secrets.

    Raises FileNotFoundError, PermissionError, IsADirectoryError, MissingDependencyError if fsspec,
    or a package it needs for the protocol, is not installed, and RemoteError for all other errors.
    """

    far = True

    def __init__(self, url: str) -> None:
        self.name = redacted(url)
        self._url = url
        self._connect()
        facts = self._facts()
        if facts.get("type") == "directory":
            raise IsADirectoryError(errno.EISDIR, "this is a directory, not a file", self.name)
        size = facts.get("size")
        if size is None:
            raise RemoteError(
                self.name, "the server does not report the size of the file: download it and open the local copy"
            )
        self.size = int(size)
        self._opened: dict[str, str] | None = _stamp(facts)
        self._kept: list[tuple[int, bytes]] = []
        # The end of the file, or all of a small one; raises RemoteError if the server does not support ranges.
        nbytes = self.size if self.size <= WHOLE else BLOCK
        if nbytes:
            self._keep(self.size - nbytes, self._range(self.size - nbytes, nbytes))

    def _connect(self) -> None:
        self._fs, self._path = file_system(self._url)
        self._is_http = "http" in self._fs.protocol
        # fsspec's own timeout, which only asynchronous file systems accept.
        self._limit = {"timeout": LONGEST} if getattr(self._fs, "async_impl", False) else {}

    def read(self, offset: int, nbytes: int) -> bytes:
        check_inside(self, offset, nbytes)
        kept = self._find(offset, nbytes)
        if kept is None and nbytes > PORTION:
            into = bytearray(nbytes)
            spread(self._fill, plan_reads([Span(offset, memoryview(into))], piece=PORTION), WAITING)
            self._after_ranges()
            return bytes(into)
        if kept is None:
            data = self._range(offset, min(max(nbytes, BLOCK), self.size - offset))
            if nbytes < BLOCK:
                self._keep(offset, data)
            kept = data[:nbytes]
        return kept

    def read_into(self, spans: Sequence[Span]) -> None:
        for offset, into in spans:
            check_inside(self, offset, len(into))
        calls = plan_reads([span for span in spans if not self._has(span)], piece=PORTION, gap=GAP)
        if len(calls) == 1 and calls[0].nbytes < BLOCK:
            # Same as a small read, so cache it like one.
            _pour(self.read(calls[0].offset, calls[0].nbytes), calls[0])
        else:
            spread(self._fill, calls, WAITING)
        if calls:
            self._after_ranges()

    def _after_ranges(self) -> None:
        """Raise FileChangedError if the ranges that were read may be of another version."""
        self.check_unchanged()

    def _has(self, span: Span) -> bool:
        """Fill the span if its bytes are cached, and return whether they were."""
        kept = self._find(span.offset, len(span.into))
        if kept is not None:
            span.into[:] = kept
        return kept is not None

    def mapped(self) -> None:
        raise RemoteError(self.name, "only local files can be memory-mapped: load it without mmap, or map a local copy")

    def lease(self, until: ExitStack) -> None:
        return None

    def beside(self, name: str) -> RemoteFile:
        return type(self)(sibling(self._url, name))

    def check_unchanged(self) -> None:
        opened = self._stamp_when_opened()
        now = _stamp(self._facts())
        changed = [key for key in STAMPS if now.get(key) != opened.get(key)]
        if changed:
            raise FileChangedError(self.name, f"its {changed[0]} has changed")

    def close(self, at: int = 0) -> None:
        self._opened = None
        self._kept = []

    def _facts(self) -> Mapping[str, Any]:
        def ask() -> Mapping[str, Any]:
            self._fs.invalidate_cache(self._path)
            if self._is_http:
                return facts_of(self._fs, self._path)
            facts: Mapping[str, Any] = self._fs.info(self._path, **self._limit)
            return facts

        return attempt(ask, self._url)

    def _stamp_when_opened(self) -> dict[str, str]:
        if self._opened is None:
            raise ValueError(f"{self.name} has been closed; open it again")
        return self._opened

    def _fill(self, call: VectoredRead) -> None:
        _pour(self._range(call.offset, call.nbytes), call)

    def _range(self, offset: int, nbytes: int) -> bytes:
        """Return exactly these bytes."""
        etag = self._stamp_when_opened().get("ETag")
        if not nbytes:
            return b""
        try:
            return attempt(lambda: self._answer(range(offset, offset + nbytes), etag), self._url)
        except RemoteError:
            # If the file was replaced, that is the reason.
            self.check_unchanged()
            raise

    def _answer(self, span: range, etag: str | None) -> bytes:
        if self._is_http:
            data = fetch_range(self._fs, self._path, self.name, span, self.size, etag)
        else:
            data = self._fs.cat_file(self._path, start=span.start, end=span.stop, **self._limit)
        if len(data) < len(span):
            raise RemoteError(
                self.name, f"received only {len(data):,} of the {len(span):,} bytes requested from byte {span.start:,}"
            )
        if len(data) > len(span):
            raise FinalError(no_ranges(self.name))
        return data

    def _find(self, offset: int, nbytes: int) -> bytes | None:
        """Return the bytes if they are cached."""
        for start, data in tuple(self._kept):
            if start <= offset and offset + nbytes <= start + len(data):
                return data[offset - start : offset - start + nbytes]
        return None

    def _keep(self, offset: int, data: bytes) -> None:
        # The first block, the end of the file, is never dropped.
        self._kept = [*self._kept[:1], *self._kept[1:][-(KEPT - 2) :], (offset, data)]


def _pour(data: bytes, call: VectoredRead) -> None:
    """Fill the buffers of a planned read, one after the other."""
    left = memoryview(data)
    for into in call.into:
        into[:] = left[: len(into)]
        left = left[len(into) :]


def _stamp(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the facts that identify this version of the file."""
    return {key: str(facts[key]) for key in STAMPS if facts.get(key)}


# Timeouts in seconds for connecting and for silence within a response; and the lowest average rate in bytes per second.
CONNECT = 3
SILENT = 10
SLOWEST = 16 << 10
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def facts_of(fs: Any, path: str) -> dict[str, Any]:
    """Return fsspec's `info` of a file: size, ETag and date."""
    from fsspec.asyn import sync

    found: dict[str, Any] = sync(fs.loop, partial(fs._info, path, **_timeout(fs, 0)), timeout=2 * SILENT)
    return found


def fetch_range(fs: Any, path: str, name: str, span: range, size: int, etag: str | None) -> bytes:
    """Return bytes of a file of `size` bytes, called `name` in messages; fewer if the response ends early.

    Raises FinalError if the server sends anything else, and the errors of the session. A file with another ETag is
    not returned (HTTP 412).
    """
    from fsspec.asyn import sync

    answer: bytes = sync(fs.loop, partial(_fetch, fs, path, name, span, size, etag))
    return answer


def no_ranges(name: str) -> RemoteError:
    """Return the error for a server that does not support range requests."""
    return RemoteError(name, "the server does not support range requests: download the file and open the local copy")


async def _fetch(fs: Any, path: str, name: str, span: range, size: int, etag: str | None) -> bytes:
    session = await fs.set_session()
    asked = {"Range": f"bytes={span.start}-{span.stop - 1}", "Accept-Encoding": "identity"}
    # A weak ETag never matches.
    asked |= {"If-Match": etag} if etag and not etag.startswith("W/") else {}
    options = {**fs.kwargs, "headers": {**fs.kwargs.get("headers", {}), **asked}, **_timeout(fs, len(span))}
    async with session.get(fs.encode_url(path), **options) as answer:
        answer.raise_for_status()
        _check(answer, name, span, size)
        parts: list[bytes] = []
        left = len(span) + 1
        while left > 0 and (part := await answer.content.read(left)):
            parts.append(part)
            left -= len(part)
        if not left:
            answer.close()
            raise FinalError(no_ranges(name))
        return b"".join(parts)


def _check(answer: Any, name: str, span: range, size: int) -> None:
    """Raise FinalError unless the response has exactly these bytes, not encoded."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding not in ("identity", ""):
        raise FinalError(
            RemoteError(
                name, f"the server sent data with Content-Encoding {encoding[:20]!r}, but identity was requested"
            )
        )
    if answer.status != 206:
        if len(span) < size:
            raise FinalError(no_ranges(name))
        return
    said = answer.headers.get("Content-Range", "")
    found = CONTENT_RANGE.fullmatch(said.strip())
    if found is None or int(found[1]) != span.start or int(found[2]) >= span.stop or found[3] not in (str(size), "*"):
        wanted = f"bytes {span.start}-{span.stop - 1}/{size}"
        raise FinalError(RemoteError(name, f"the server sent Content-Range {said[:80]!r} instead of {wanted!r}"))


def _timeout(fs: Any, nbytes: int) -> dict[str, Any]:
    """Return the timeout option for a response of `nbytes` bytes; the user's own setting takes precedence."""
    if "timeout" in fs.kwargs:
        return {}
    from aiohttp import ClientTimeout

    total = SILENT + nbytes / SLOWEST
    return {"timeout": ClientTimeout(total=total, sock_connect=CONNECT, sock_read=SILENT)}
