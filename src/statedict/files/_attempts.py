"""Call remote file systems through fsspec: connect, retry, and translate their errors.

File systems raise the errors of their libraries, often with the whole URL including password and signature. So none of
these errors is passed on, not even as a cause, because tracebacks print causes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ..errors import MissingDependencyError, RemoteError
from ._open import BEGINS, HIDDEN, redacted

Result = TypeVar("Result")

# Seconds before each retry, minus up to half of it, so that many clients do not retry at the same time.
DELAYS = (0.2, 0.4, 0.8, 1.6)
REFUSED = (401, 403, 407)
MISSING = (404, 410)
# Request timeout, too early, too many requests; statuses from 500 on are errors of the server and also transient.
LATER = (408, 425, 429)
# After this many seconds only the first retry may start, so that a dead or silent server is given up soon.
PATIENCE = 5
# Permanent errors, by class name because their packages may not be installed.
FINAL = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "TooManyRedirects", "InvalidURL", "NoCredentialsError"}
# Python errors that a retry cannot fix.
MISTAKES = (ValueError, TypeError, LookupError, ImportError, NotImplementedError, IsADirectoryError)


class Translation(NamedTuple):
    """The meaning of a file system's error: the error to raise, and whether a retry may help."""

    error: OSError
    transient: bool = False


class FinalError(Exception):
    """Wraps a RemoteError (its only argument) that must not be retried."""


def attempt(work: Callable[[], Result], url: str) -> Result:
    """Call `work` up to five times, waiting at most 3 seconds in total, and return its result.

    Raises FileNotFoundError, PermissionError, or RemoteError for all other errors.
    """
    tries = 0
    last_start = time.monotonic() + PATIENCE
    for delay in (*DELAYS, None):
        tries += 1
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # whatever the file system's libraries raise
            translated = translate(error, url)
        if delay is None or not translated.transient or (tries > 1 and time.monotonic() > last_start):
            break
        from random import uniform  # imports hashlib: 6 ms, not needed to read a local file

        time.sleep(delay * uniform(0.5, 1))
    if isinstance(translated.error, RemoteError):
        translated.error.tries = tries
    # Raised outside of the handler, so that the original error is not even its context.
    raise translated.error


def translate(error: Exception, url: str) -> Translation:
    """Translate an error of a file system."""
    if isinstance(error, FinalError):
        return Translation(error.args[0])
    if isinstance(error, RemoteError):
        return Translation(error, transient=True)
    # The `code` of a cause may be that of a lower layer, for a response that it could not parse.
    status = _status(error, "status", "status_code", "code") or _status(error.__cause__, "status", "status_code")
    if status in REFUSED or isinstance(error, PermissionError):
        text = f"the server refuses access{f' (HTTP {status})' if status else ''}: check your credentials"
        return Translation(PermissionError(errno.EACCES, text, redacted(url)))
    # fsspec's HTTP file system raises FileNotFoundError for any failure; the cause has the real one.
    lost = isinstance(error, FileNotFoundError) and error.__cause__ is not None and status is None
    if status in MISSING or (isinstance(error, FileNotFoundError) and not lost and status is None):
        return Translation(FileNotFoundError(errno.ENOENT, "no such file", redacted(url)))
    if status is not None:
        answer = RemoteError(redacted(url), f"the server answered HTTP {status}")
        return Translation(answer, transient=status in LATER or status >= 500)
    cause: BaseException | None = error.__cause__ if lost else error
    if isinstance(cause, TimeoutError) and not getattr(cause, "errno", None):
        return Translation(RemoteError(redacted(url), "the server did not answer in time"), transient=True)
    text = scrubbed(" ".join(str(cause).split()), url)
    what = f"{type(cause).__name__}: {text}" if text else type(cause).__name__
    final = isinstance(cause, MISTAKES) or not FINAL.isdisjoint(kind.__name__ for kind in type(cause).__mro__)
    return Translation(RemoteError(redacted(url), what), transient=not final)


def _status(error: Any, *attributes: str) -> int | None:
    """Return the HTTP status of an error of any library: its own, or that of the response it carries."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        found: Any = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for holder, attribute in ((response, "status_code"), *((error, attribute) for attribute in attributes)):
        found = getattr(holder, attribute, None)
        if isinstance(found, (int, str)) and str(found).isdecimal() and 400 <= int(found) < 600:
            return int(found)
    return None


def scrubbed(text: str, url: str) -> str:
    """Return a library's message about a URL without the secrets of the URL, however they are quoted.

    >>> scrubbed("503 from http://h/a?token=a%20b (token a b)", "http://h/a?token=a%20b")
    '503 from http://h/a?*** (token ***)'
    """
    text = redacted(text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _secrets(url: str) -> set[str]:
    secrets: set[str] = set()
    for link in url.split("::"):
        parts = urlsplit(link)
        name, _, password = parts.netloc.rpartition("@")[0].partition(":")
        secrets |= {name, password, unquote(name), unquote(password), parts.query}
        secrets |= {value for _, value in parse_qsl(parts.query)}
    # Shorter ones would match parts of ordinary words.
    return {secret for secret in secrets if len(secret) >= 3}


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
    return _replaced(url, lambda path: path.rpartition("/")[0], name)


def inside(url: str, name: str) -> str:
    """Return the URL of the file, or folder, `name` in the folder at a URL.

    >>> inside("hf://org/model@main/", "vae/config.json")
    'hf://org/model@main/vae/config.json'
    """
    return _replaced(url, lambda path: path.rstrip("/"), name)


def _replaced(url: str, above: Callable[[str], str], name: str) -> str:
    match = BEGINS.match(url)
    # In a chain of paths (`zip://member::s3://archive`) the first one is the file's own.
    start = match.end() if match else 0
    path, joint, rest = url[start:].partition("::")
    query = ""
    if url[:start].rpartition("::")[2].startswith("http"):
        path, mark, query = path.partition("?")
        name, query = quote(name), mark + query
    return f"{url[:start]}{above(path)}/{name}{query}{joint}{rest}"


def _missing(package: str, url: str) -> MissingDependencyError:
    extra = "remote" if package in EXTRA else None
    return MissingDependencyError(package, needed_for=f"reading {redacted(url)}", extra=extra)
