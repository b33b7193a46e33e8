"""fsspec file systems for URLs, and the URLs of neighbouring files."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ..errors import MissingDependencyError
from ._attempts import attempt
from ._url import BEGINS, redacted

# The packages of the extra; anything else that fsspec may need is the user's choice.
EXTRA = ("aiohttp", "fsspec", "requests")


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system for a URL, and the path in it.

    Raises MissingDependencyError, which names the package, if a required package is not installed; RemoteError if
    fsspec does not support the protocol, or its file system cannot be set up.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise _missing("fsspec", url) from None

    def connect() -> Any:
        try:
            return url_to_fs(url)
        except ImportError as error:
            return error

    found = attempt(connect, url)
    if isinstance(found, ImportError):
        # fsspec's message says what to install; the cause has the name of the missing module.
        raise _missing(getattr(found.__cause__, "name", None) or str(found), url)
    system: tuple[Any, str] = found
    return system


def sibling(url: str, name: str) -> str:
    """Return the URL of the file `name` in the same folder. A query is kept, because it may carry the credentials.

    >>> sibling("https://host/model/index.json?token=1", "part 1.bin")
    'https://host/model/part%201.bin?token=1'
    """
    match = BEGINS.match(url)
    # In a chain of paths (`zip://member::s3://archive`) the first one is the file's own.
    start = match.end() if match else 0
    path, joint, rest = url[start:].partition("::")
    query = ""
    if url[:start].rpartition("::")[2].startswith("http"):
        path, mark, query = path.partition("?")
        name, query = quote(name), mark + query
    return f"{url[:start]}{path.rpartition('/')[0]}/{name}{query}{joint}{rest}"


def _missing(package: str, url: str) -> MissingDependencyError:
    extra = "remote" if package in EXTRA else None
    return MissingDependencyError(package, needed_for=f"reading {redacted(url)}", extra=extra)
