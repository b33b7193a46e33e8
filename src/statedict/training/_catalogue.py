"""The checkpoints of a run, each manifest of which is read once."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from . import _layout, _manifest
from ._keep import Saved

# A file that changed less than this many nanoseconds ago may change again without another time of change.
SETTLED = 2_000_000_000


class _Stamp(NamedTuple):
    inode: int
    nbytes: int
    modified: int
    changed: int


class Catalogue:
    """Lists a run's checkpoints; a manifest is read again only where its file has changed since.

    A run of 10,000 checkpoints is listed at every save: reading all manifests would take seconds.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[_Stamp, Saved | None]] = {}

    def saved(self) -> list[Saved]:
        """The run's checkpoints whose manifest can be read, oldest first.

        Raises OSError where a manifest cannot be read now: a list without it would be wrong.
        """
        known, found, listed = self._known, {}, []
        now = time.time_ns()
        for name in _layout.names(self._directory):
            stamp = _stamp(f"{self._directory}/{name}/{_manifest.NAME}")
            if stamp is None:
                continue
            entry = known.get(name)
            if entry is None or entry[0] != stamp:
                entry = stamp, _layout.describe(self._directory / name)
            if now - stamp.changed > SETTLED:
                found[name] = entry
            listed.append(entry[1])
        self._known = found
        return [saved for saved in listed if saved is not None]


def _stamp(file: str) -> _Stamp | None:
    """What changes with a file's content; None where there is no file."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
