"""Parts of a file over HTTP, asked for through the session of fsspec's file system.

fsspec takes whatever a server sends: another range, an answer without end, one that inflates to any size. Here the answer
must be the bytes that were asked for, of the file that was opened; not one more is read, and a silent server is given up.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from ..errors import RemoteError
from ._attempts import FinalError

# Seconds until a connection stands, and without a byte of an answer; and bytes a second, over the whole of one.
CONNECT = 3
SILENT = 10
SLOWEST = 16 << 10
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def facts_of(fs: Any, path: str) -> dict[str, Any]:
    """What fsspec's `info` says of a file: its size, ETag and date."""
    from fsspec.asyn import sync

    found: dict[str, Any] = sync(fs.loop, partial(fs._info, path, **_timeout(fs, 0)), timeout=2 * SILENT)
    return found


def fetch_range(fs: Any, path: str, name: str, span: range, size: int, etag: str | None) -> bytes:
    """Bytes of a file of `size` bytes, which is called `name` in messages; fewer where the answer ends early.

    Raises FinalError where the server gives something else, and whatever the session raises. A file with another ETag is
    not given (HTTP 412).
    """
    from fsspec.asyn import sync

    answer: bytes = sync(fs.loop, partial(_fetch, fs, path, name, span, size, etag))
    return answer


def no_ranges(name: str) -> RemoteError:
    """The error for a server that gives a whole file only."""
    return RemoteError(name, "the server gives no parts of the file: download it, and open the copy")


async def _fetch(fs: Any, path: str, name: str, span: range, size: int, etag: str | None) -> bytes:
    session = await fs.set_session()
    asked = {"Range": f"bytes={span.start}-{span.stop - 1}", "Accept-Encoding": "identity"}
    # A weak ETag matches nothing.
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
    """Raise FinalError unless the answer is of these bytes, as they are in the file."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding not in ("identity", ""):
        raise FinalError(
            RemoteError(name, f"the server sends {encoding[:20]!r} data where it was asked for the file's own")
        )
    if answer.status != 206:
        if len(span) < size:
            raise FinalError(no_ranges(name))
        return
    said = answer.headers.get("Content-Range", "")
    found = CONTENT_RANGE.fullmatch(said.strip())
    if found is None or int(found[1]) != span.start or int(found[2]) >= span.stop or found[3] not in (str(size), "*"):
        wanted = f"bytes {span.start}-{span.stop - 1}/{size}"
        raise FinalError(RemoteError(name, f"the server sends {said[:80]!r} where {wanted!r} was asked for"))


def _timeout(fs: Any, nbytes: int) -> dict[str, Any]:
    """The option for a request whose answer has so many bytes; what the user has configured counts."""
    if "timeout" in fs.kwargs:
        return {}
    from aiohttp import ClientTimeout

    total = SILENT + nbytes / SLOWEST
    return {"timeout": ClientTimeout(total=total, sock_connect=CONNECT, sock_read=SILENT)}
