"""The file system that a URL names, by fsspec; and the URLs of what lies beside a file."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ..errors import MissingDependencyError
from ._attempts import attempt
from ._url import BEGINS, redacted

# What the extra installs; everything else that fsspec may need is the user's choice.
EXTRA = ("aiohttp", "fsspec", "requests")


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path on it.

    Raises MissingDependencyError, which names the package, where what it needs is not installed; RemoteError where fsspec
    does not know the protocol, or its file system cannot be set up.
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
        # fsspec says in words what to install, and keeps as the cause which module was not found.
        raise _missing(getattr(found.__cause__, "name", None) or str(found), url)
    system: tuple[Any, str] = found
    return system


def sibling(url: str, name: str) -> str:
    """The URL of the file of that name in the same folder; a query stays, as it may be what gives access.

    >>> sibling("https://host/model/index.json?token=1", "part 1.bin")
    'https://host/model/part%201.bin?token=1'
    """
    match = BEGINS.match(url)
    # In a chain of paths (`zip://member::s3://archive`) the first is the file's own.
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
