"""A Bucket of S3, Google Cloud Storage or Azure, through obstore (the Rust crate object_store).

obstore retries failed requests by itself, except those of a conditional write after which the outcome is unknown. Its errors
contain URLs with their signatures, so none of them is passed on as a cause.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from ...errors import ConflictError, MissingDependencyError, RemoteError
from .._attempts import MISSING, REFUSED, scrubbed
from .._open import redacted
from ._bucket import ABSENT, StoredObject
from ._credentials import options_of

Result = TypeVar("Result")

# Bytes of one part of a multipart upload, and how many are sent at a time: with the part that is being filled, and copies
# inside the client, less than 64 MiB. S3 allows 10,000 parts, so an object may have 78 GiB.
PART = 8 << 20
PARTS = 4
# Retries of the client: five in at most 30 s, so that a dead store is reported and a commit does not hang.
RETRIES = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2},
}
CLIENT = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(minutes=5),
}
# The first line of obstore's errors ends with the reason; the other lines repeat it as Rust's debug text.
NO_BUCKET = re.compile(r"<Code>NoSuchBucket</Code>|The specified bucket does not exist|ContainerNotFound")
STATUS = re.compile(r"status code: (\d{3}[ \w]*)")


class ObstoreBucket:
    """The objects behind a URL such as `s3://bucket/prefix`; raises MissingDependencyError without obstore."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore import store
        except ImportError:
            raise MissingDependencyError("obstore", needed_for=f"reading {redacted(url)}", extra="remote") from None
        self.url = redacted(url).rstrip("/")
        self._url = url
        self._api = obstore
        self._store: Any = self._attempt("", lambda: self._connected(store))

    def _connected(self, store: Any) -> Any:
        options, client = options_of(self._url)
        return store.from_url(
            self._url.rstrip("/"), retry_config=RETRIES, client_options={**CLIENT, **client}, **options
        )

    def stat(self, key: str) -> StoredObject:
        return _entry(self._attempt(key, lambda: self._api.head(self._store, key)))

    def get(self, key: str) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            found = self._api.get(self._store, key)
            return bytes(found.bytes()), _tag(found.meta)

        return self._attempt(key, read)

    def read(self, key: str, start: int, stop: int, etag: str = "") -> bytes:
        if stop <= start:
            return b""
        known = _condition(etag)
        only = {"if_match": known["e_tag"]} if "e_tag" in known else known
        wanted = {"range": (start, stop), **only}
        return self._attempt(key, lambda: bytes(self._api.get(self._store, key, options=wanted).bytes()))

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        mode: Any = "overwrite" if if_match is None else "create" if if_match == ABSENT else _condition(if_match)
        done = self._attempt(
            key, lambda: self._api.put(self._store, key, data, mode=mode, use_multipart=False), writes=if_match
        )
        return _tag(done)

    def upload(self, key: str, blocks: Iterable[bytes | memoryview]) -> None:
        first, rest = _beginning(blocks)
        if rest is None:
            self.put(key, b"".join(first))
            return
        raised: list[BaseException] = []

        def guarded() -> Iterator[bytes | memoryview]:
            try:
                while first:
                    yield first.pop(0)
                yield from rest
            except BaseException as error:
                raised.append(error)
                raise

        def send() -> None:
            # An error of the iterator aborts the upload: the parts that were sent are deleted.
            self._api.put(self._store, key, guarded(), use_multipart=True, chunk_size=PART, max_concurrency=PARTS)

        try:
            self._attempt(key, send)
        except Exception:
            if raised:
                raise raised[0] from None
            raise

    def names(self, folder: str = "") -> tuple[list[str], list[str]]:
        """Return the plain names of the objects, and of the folders, directly in a folder (`""`, `"optimizer/"`)."""
        found: Any = self._attempt(
            folder, lambda: self._api.list_with_delimiter(self._store, folder.rstrip("/") or None)
        )
        paths = [each["path"] for each in found["objects"]], found["common_prefixes"]
        files, folders = ([path.rstrip("/").rpartition("/")[2] for path in kind] for kind in paths)
        return files, folders

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        # obstore lists by whole steps of a path, so the last step of the prefix is compared here.
        folder, _, _ = prefix.rpartition("/")
        found = self._attempt(
            prefix, lambda: [each for page in self._api.list(self._store, folder or None) for each in page]
        )
        return sorted(entry for entry in map(_entry, found) if entry.key.startswith(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            with suppress(FileNotFoundError):
                self._attempt(keys[0], lambda: self._api.delete(self._store, list(keys)))

    def copy(self, source: str, target: str) -> None:
        self._attempt(source, lambda: self._api.copy(self._store, source, target))

    def _attempt(self, key: str, work: Callable[[], Result], *, writes: str | None = None) -> Result:
        try:
            return work()
        except Exception as error:  # noqa: BLE001  # whatever obstore raises
            translated = self._translated(
                error, f"{self.url}/{key}" if key else self.url, conditional=writes is not None
            )
        # Raised outside of the handler, so that the original error is not even its context.
        raise translated

    def _translated(self, error: Exception, name: str, *, conditional: bool) -> Exception:
        kind = type(error).__name__
        text = str(error)
        if NO_BUCKET.search(text):
            # Before the test for a ConflictError: without the bucket, a conditional write has not lost to another writer.
            reason = "the bucket does not exist: create it, or check the URL, the endpoint and the region"
            return FileNotFoundError(errno.ENOENT, reason, name)
        # A conditional write to an object that was deleted meanwhile.
        missing = isinstance(error, FileNotFoundError) or kind == "NotFoundError"
        if kind in ("AlreadyExistsError", "PreconditionError") or (missing and conditional):
            return ConflictError(name)
        status = STATUS.search(text)
        code = int(status[1][:3]) if status else 0
        if missing or code in MISSING:
            return FileNotFoundError(errno.ENOENT, "no such file", name)
        if kind in ("PermissionDeniedError", "UnauthenticatedError") or code in REFUSED:
            return PermissionError(errno.EACCES, "the store refuses access: check your credentials", name)
        if not (type(error).__module__.startswith("obstore") or isinstance(error, (OSError, ValueError))):
            return error
        reason = (
            f"the store answered HTTP {status[1].strip()}" if status else scrubbed(" ".join(_first(text)), self._url)
        )
        return RemoteError(name, reason)


def _beginning(
    blocks: Iterable[bytes | memoryview],
) -> tuple[list[bytes | memoryview], Iterator[bytes | memoryview] | None]:
    """Take as many blocks as one part of an upload has; return them, and the others, or None if these are all."""
    rest, taken, nbytes = iter(blocks), [], 0
    for block in rest:
        taken.append(block)
        nbytes += len(block)
        if nbytes > PART:
            return taken, rest
    return taken, None


def _first(text: str) -> list[str]:
    """Return the words of an error's first line."""
    return text.partition("\n")[0].split()


def _entry(facts: Any) -> StoredObject:
    return StoredObject(facts["path"], facts["size"], _tag(facts), facts["last_modified"])


def _tag(facts: Any) -> str:
    """Return the ETag of an object, and on a further line its version: Google Cloud Storage needs it for a condition.

    A store may have only one of them; the line of the other is empty.
    """
    return "\n".join((facts["e_tag"] or "", facts["version"] or "")).rstrip("\n")


def _condition(tag: str) -> dict[str, str]:
    """Convert back what `_tag` returned."""
    return {key: value for key, value in zip(("e_tag", "version"), tag.split("\n")) if value}
