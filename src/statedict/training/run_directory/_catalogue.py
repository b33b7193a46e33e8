"""The list of a run's checkpoints, with a cache of their manifests."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from statedict.formats import runs

from .._keep import Saved
from . import _layout, _pins

# A manifest is cached only when its file is at least this old (ns): a second change within the timestamp resolution would
# not be noticed.
SETTLED = 2_000_000_000


class _Stamp(NamedTuple):
    inode: int
    nbytes: int
    modified: int
    changed: int


class Catalogue:
    """Lists a run's checkpoints. A manifest is read again only if its file has changed.

    Every save lists the run, and reading 10,000 manifests takes seconds.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[_Stamp, Saved | None]] = {}

    def saved(self) -> list[Saved]:
        """The checkpoints with a valid manifest, oldest first.

        Raises OSError if a manifest cannot be read at the moment: a list without that checkpoint would be wrong.
        """
        known, found, listed = self._known, {}, []
        now = time.time_ns()
        for name in _layout.names(self._directory):
            stamp = _stamp(f"{self._directory}/{name}/{runs.MANIFEST}")
            if stamp is None:
                continue
            entry = known.get(name)
            if entry is None or entry[0] != stamp:
                entry = stamp, _layout.describe(self._directory / name)
            if now - max(stamp.modified, stamp.changed) > SETTLED:
                found[name] = entry
            listed.append(entry[1])
        self._known = found
        pinned = _pins.pinned(self._directory)
        return [replace(one, pinned=True) if one.step in pinned else one for one in listed if one is not None]


def _stamp(file: str) -> _Stamp | None:
    """Facts that change when the file's content does; None if the file does not exist."""
    try:
        status = os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
