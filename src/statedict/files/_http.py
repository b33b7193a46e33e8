"""Read ranges of a file over HTTP, through the session of fsspec's file system.

fsspec accepts any response: another range, an endless one, one that decompresses to any size. Here the response must be
exactly the requested bytes of the file that was opened; no further byte is read, and a silent server times out.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ..errors import RemoteError
from ._attempts import FinalError

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
