"""An object as a File, and a prefix as a Folder."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...errors import ConflictError, FileChangedError, RemoteError
from .._attempts import inside
from .._folder import Entries, Folder, is_plain_name
from .._open import redacted
from .._remote import RemoteFile
from ._obstore import ObstoreBucket
from ._open import split


class StoreFile(RemoteFile):
    """The File of an object. Each range is requested from the version that was opened, so no later check is needed."""

    def _connect(self) -> None:
        folder, self._key = split(self._url)
        self._bucket = ObstoreBucket(folder)

    def _facts(self) -> Mapping[str, Any]:
        try:
            found = self._bucket.stat(self._key)
        except FileNotFoundError:
            with suppress(FileNotFoundError):
                if any(self._bucket.names(f"{self._key}/")):
                    return {"type": "directory"}
            raise
        return {"size": found.nbytes, "ETag": found.etag}

    def _range(self, offset: int, nbytes: int) -> bytes:
        etag = self._stamp_when_opened().get("ETag", "")
        try:
            data = self._bucket.read(self._key, offset, offset + nbytes, etag)
        except ConflictError:
            raise FileChangedError(self.name, "its ETag has changed") from None
        if len(data) != nbytes:
            raise RemoteError(
                self.name, f"received only {len(data):,} of the {nbytes:,} bytes requested from byte {offset:,}"
            )
        return data

    def _after_ranges(self) -> None:
        """Do nothing: a range of another version was refused."""


def stored_folder(url: str) -> Folder:
    """Return the Folder of a prefix. Each folder in it is listed once, when it is needed."""
    bucket = ObstoreBucket(url)

    def entries(within: str) -> Entries:
        files, folders = bucket.names(within)
        if not (files or folders or within):
            raise FileNotFoundError(errno.ENOENT, "no such file", redacted(url))
        return Entries(*(sorted(filter(is_plain_name, names)) for names in (files, folders)))

    return Folder(redacted(url).rstrip("/"), lambda name: StoreFile(inside(url, name)), entries)
