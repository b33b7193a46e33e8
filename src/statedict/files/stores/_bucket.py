"""The Bucket protocol: objects by key under a prefix, and writes whose outcome is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from ...errors import ConflictError, RemoteError

# The condition of a `put` for an object that must not exist yet, instead of an ETag.
ABSENT = ""


class StoredObject(NamedTuple):
    """The facts that a store has about an object.

    Attributes:
        key: relative to the bucket's prefix.
        nbytes: its size.
        etag: changes whenever the object is written with other content.
        modified: when it was written, by the clock of the store.
    """

    key: str
    nbytes: int
    etag: str
    modified: datetime


class Bucket(Protocol):
    """The objects of a store whose keys begin with a prefix. This is its whole surface.

    Keys are relative to the prefix. A store writes an object completely or not at all, and an object that was written is
    read by its key at once; only `list` may be out of date.

    Attributes:
        url: the prefix as a URL, without secrets, for messages.

    Every method raises FileNotFoundError for an object (or bucket) that does not exist, PermissionError, and RemoteError
    if the store fails or its response is lost; after a RemoteError, a write may have happened.
    """

    @property
    def url(self) -> str: ...

    def stat(self, key: str) -> StoredObject:
        """Return the facts of an object."""

    def get(self, key: str) -> tuple[bytes, str]:
        """Return the content and the ETag of a small object."""

    def read(self, key: str, start: int, stop: int, etag: str = "") -> bytes:
        """Return these bytes of an object (fewer if it ends before); raise ConflictError if its ETag is another one."""

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        """Write a small object and return its ETag.

        With `if_match` it is written only if the object has that ETag, or does not exist (ABSENT); else raise ConflictError.
        """

    def upload(self, key: str, blocks: Iterable[bytes | memoryview]) -> None:
        """Write an object of any size from consecutive blocks, several parts at a time; each block is kept until it is sent.

        If `blocks` raises, nothing is written.
        """

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        """Return all objects whose keys begin with `prefix`, sorted by key. The list may be out of date."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are ignored."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store."""


def put_surely(bucket: Bucket, key: str, data: bytes, *, if_match: str | None) -> str:
    """Write a small object under a condition, and return its ETag; raise ConflictError if another writer was first.

    `data` must be unique. If the response was lost, or a retry of the client found its own first attempt, the object is read
    again: if it has this content, the write has succeeded.
    """
    try:
        return bucket.put(key, data, if_match=if_match)
    except (ConflictError, RemoteError) as error:
        try:
            found, etag = bucket.get(key)
        except FileNotFoundError:
            raise error from None
        if found == data:
            return etag
        if isinstance(error, ConflictError) or if_match in (None, etag):
            raise
        raise ConflictError(error.file) from error
