"""A Bucket in fsspec's `memory://`, which is shared by the whole process: for examples and tests without a network."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from ...errors import ConflictError
from .._attempts import file_system
from .._open import redacted
from ._bucket import ABSENT, StoredObject

# fsspec's memory has neither ETags nor conditional writes.
_TURN = threading.RLock()
_VERSIONS = count()


class MemoryBucket:
    """The objects behind a URL such as `memory://bucket/prefix`."""

    def __init__(self, url: str) -> None:
        self.url = redacted(url).rstrip("/")
        self._fs, path = file_system(url)
        self._path = path.rstrip("/")

    def stat(self, key: str) -> StoredObject:
        with _TURN:
            return self._entry(self._path_of(key), self._object(key))

    def get(self, key: str) -> tuple[bytes, str]:
        with _TURN:
            found = self._object(key)
            return found.getvalue(), _etag(found)

    def read(self, key: str, start: int, stop: int, etag: str = "") -> bytes:
        with _TURN:
            self._check(key, etag or None)
            data: bytes = self._object(key).getvalue()
            return data[start:stop]

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        with _TURN:
            self._check(key, if_match)
            self._fs.pipe_file(self._path_of(key), bytes(data))
            return self.stat(key).etag

    def upload(self, key: str, blocks: Iterable[bytes | memoryview]) -> None:
        self.put(key, b"".join(blocks))

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        with _TURN:
            inside = self._path_of(prefix)
            found = [(path, file) for path, file in self._fs.store.items() if path.startswith(inside)]
            return sorted(self._entry(path, file) for path, file in found)

    def delete(self, keys: Sequence[str]) -> None:
        with _TURN:
            for key in keys:
                self._fs.store.pop(self._path_of(key), None)

    def copy(self, source: str, target: str) -> None:
        with _TURN:
            self.put(target, self._object(source).getvalue())

    def _path_of(self, key: str) -> str:
        return f"{self._path}/{key}"

    def _object(self, key: str) -> Any:
        found = self._fs.store.get(self._path_of(key))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.url}/{key}")
        return found

    def _check(self, key: str, etag: str | None) -> None:
        """Raise ConflictError unless the object has that ETag (ABSENT: does not exist; None: any)."""
        found = self._fs.store.get(self._path_of(key))
        now = ABSENT if found is None else _etag(found)
        if etag is not None and now != etag:
            raise ConflictError(f"{self.url}/{key}")

    def _entry(self, path: str, file: Any) -> StoredObject:
        modified = getattr(file, "modified", None) or datetime.now(UTC)
        return StoredObject(path.removeprefix(f"{self._path}/"), file.getbuffer().nbytes, _etag(file), modified)


def _etag(file: Any) -> str:
    """Return the version of one of fsspec's objects, which is replaced, not changed, by each write."""
    if not hasattr(file, "statedict_version"):
        file.statedict_version = next(_VERSIONS)
    return f"v{file.statedict_version}"
