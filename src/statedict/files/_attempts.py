"""Calls over a network: tried again where that may help, and what they raise at last said in words of ours.

File systems raise whatever their libraries do, and often with the whole URL, its password and signature included. So none
of their errors goes on, not even as a cause: a traceback prints causes.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import RemoteError
from ._url import HIDDEN, redacted

Result = TypeVar("Result")

# Seconds before each further try, less up to half of it, so that many clients do not come back at once.
DELAYS = (0.2, 0.4, 0.8, 1.6)
REFUSED = (401, 403, 407)
MISSING = (404, 410)
# Too slow, too early, too many; everything from 500 on is trouble of the server's own.
LATER = (408, 425, 429)
# No further try begins after so many seconds, but for the second: a server that is dead, or silent, is given up soon.
PATIENCE = 5
# Errors by name, since their packages may not be installed, that are the same the next time.
FINAL = {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "TooManyRedirects", "InvalidURL", "NoCredentialsError"}
# Mistakes that are the same the next time.
MISTAKES = (ValueError, TypeError, LookupError, ImportError, NotImplementedError, IsADirectoryError)


class Judgement(NamedTuple):
    """What an error of a file system means: the error to raise for it, and whether the call is worth another try."""

    error: OSError
    transient: bool = False


class FinalError(Exception):
    """A RemoteError, its only argument, that another try would not spare."""


def attempt(work: Callable[[], Result], url: str) -> Result:
    """What `work` returns, called up to five times, within 3 seconds of waiting between them.

    Raises FileNotFoundError, PermissionError, or RemoteError for everything else that goes wrong.
    """
    tries = 0
    last_start = time.monotonic() + PATIENCE
    for delay in (*DELAYS, None):
        tries += 1
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # whatever the file system's libraries raise
            judged = judge(error, url)
        if delay is None or not judged.transient or (tries > 1 and time.monotonic() > last_start):
            break
        time.sleep(delay * random.uniform(0.5, 1))
    if isinstance(judged.error, RemoteError):
        judged.error.tries = tries
    # Outside of the handler: the lower error is not even this one's context.
    raise judged.error


def judge(error: Exception, url: str) -> Judgement:
    """What an error of a file system means."""
    if isinstance(error, FinalError):
        return Judgement(error.args[0])
    if isinstance(error, RemoteError):
        return Judgement(error, transient=True)
    # The `code` of a cause may be a lower layer's, about an answer that it could not make out.
    status = _status(error, "status", "status_code", "code") or _status(error.__cause__, "status", "status_code")
    if status in REFUSED or isinstance(error, PermissionError):
        told = f"the server refuses access{f' (HTTP {status})' if status else ''}: look at the credentials"
        return Judgement(PermissionError(errno.EACCES, told, redacted(url)))
    # fsspec's HTTP says that there is no such file for whatever went wrong; the cause then tells.
    lost = isinstance(error, FileNotFoundError) and error.__cause__ is not None and status is None
    if status in MISSING or (isinstance(error, FileNotFoundError) and not lost and status is None):
        return Judgement(FileNotFoundError(errno.ENOENT, "there is no such file", redacted(url)))
    if status is not None:
        answer = RemoteError(redacted(url), f"the server answers HTTP {status}")
        return Judgement(answer, transient=status in LATER or status >= 500)
    cause: BaseException | None = error.__cause__ if lost else error
    if isinstance(cause, TimeoutError) and not getattr(cause, "errno", None):
        return Judgement(RemoteError(redacted(url), "the server does not answer in time"), transient=True)
    told = scrubbed(" ".join(str(cause).split()), url)
    what = f"{type(cause).__name__}: {told}" if told else type(cause).__name__
    final = isinstance(cause, MISTAKES) or not FINAL.isdisjoint(kind.__name__ for kind in type(cause).__mro__)
    return Judgement(RemoteError(redacted(url), what), transient=not final)


def _status(error: Any, *attributes: str) -> int | None:
    """The HTTP status that an error of whichever library carries, there or in the answer that it carries."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore's
        found: Any = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for holder, attribute in ((response, "status_code"), *((error, attribute) for attribute in attributes)):
        found = getattr(holder, attribute, None)
        if isinstance(found, (int, str)) and str(found).isdecimal() and 400 <= int(found) < 600:
            return int(found)
    return None


def scrubbed(text: str, url: str) -> str:
    """What a lower library says of a URL, without its secrets, however that library may have quoted them.

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
    # What is shorter is part of ordinary words.
    return {secret for secret in secrets if len(secret) >= 3}
