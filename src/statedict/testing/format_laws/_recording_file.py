"""Files in memory that record which of their bytes are read."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from statedict.errors import TruncatedError
from statedict.files import File, Folder, Span


class Reading(NamedTuple):
    """One read of a file: bytes `offset … offset + nbytes`."""

    file: str
    offset: int
    nbytes: int


class OutsideFileError(TruncatedError):
    """A reader asked for bytes that the file does not have."""


class RecordingFile:
    """A File of bytes in memory; `log` gets every read. It cannot be mapped, and reading it once it is closed raises."""

    far = False

    def __init__(self, name: str, data: bytes, log: list[Reading] | None = None) -> None:
        self.name = name
        self.size = len(data)
        self.log: list[Reading] = [] if log is None else log
        self._data: bytes | None = data

    def read(self, offset: int, nbytes: int) -> bytes:
        return bytes(self._part(offset, nbytes))

    def read_into(self, spans: Sequence[Span]) -> None:
        for offset, into in spans:
            into[:] = self._part(offset, len(into))

    def mapped(self) -> None:
        return None

    def lease(self, until: ExitStack) -> None:
        return None

    def beside(self, name: str) -> File | None:
        return None

    def check_unchanged(self) -> None:
        """Do nothing but raise ValueError if it was closed: the bytes cannot change."""
        self._require_open()

    def close(self, at: int = 0) -> None:
        self._data = None

    def _part(self, offset: int, nbytes: int) -> memoryview:
        data = self._require_open()
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            problem = f"{nbytes:,} bytes are needed here, but the file has only {self.size:,}"
            raise OutsideFileError(problem, file=self.name, offset=offset)
        self.log.append(Reading(self.name, offset, nbytes))
        # Not a view that threads share: without the GIL, slicing it in several threads releases it (Python 3.14).
        return memoryview(data)[offset : offset + nbytes]

    def _require_open(self) -> bytes:
        if self._data is None:
            raise ValueError(f"{self.name} has been closed; open it again")
        return self._data


def recording_folder(path: str, files: Mapping[str, bytes], log: list[Reading]) -> Folder:
    """Return a Folder of files in memory; a name that is not one of them is a missing file."""

    def opened(name: str) -> File:
        if name not in files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.path.join(path, name))
        return RecordingFile(os.path.join(path, name), files[name], log)

    return Folder(path, opened, files)
