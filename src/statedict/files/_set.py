"""Write several files that belong together, so that a reader finds all of the old ones or all of the new ones.

Theory of operation. The new files get unused names, so no old file is touched; then the head, the file that names the
others, replaces the old head by one rename. Before that it refers to the old files, afterwards to the new ones, and
only then are the old ones deleted. A killed save may leave files that no head names. Their names are recorded before
they are created, in a temporary file that stays locked (see `_atomic`); the next save to the same path finds that list
and deletes the files on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..errors import DiskFullError
from ._atomic import Replacement, check_durability
from ._output import Durable
from ._write import Fill, Part, fill, total_of
from .system import SYSTEM, System


class FileSet(NamedTuple):
    """The files to write.

    Attributes:
        path: the path after which all files are named; they are in its directory.
        head: the path of the file that names the others.
        head_parts: returns the content of the head for these names of the others.
        others: the content of each of the others.
        names: returns names for the others, with a mark that distinguishes them from earlier ones; `""`: without a mark.
        earlier: returns the names of the existing files of an earlier save, the head that names the others first.
        ours: returns whether a file of that name may come from an earlier save to `path`.
    """

    path: str
    head: str
    head_parts: Callable[[Sequence[str]], Sequence[Part]]
    others: Sequence[Sequence[Part]]
    names: Callable[[str], Sequence[str]]
    earlier: Callable[[], Sequence[str]]
    ours: Callable[[str], bool]


class _TakenError(Exception):
    """Another save has created a file with a name that this one had chosen."""


class _Journal:
    """The names of files that may remain unused, recorded before they are created or become unused."""

    def __init__(self, file: Replacement) -> None:
        self._file = file
        self._nbytes = 0
        self.names: list[str] = []

    def note(self, names: Iterable[str]) -> None:
        new = [os.fsencode(name) + b"\n" for name in names]
        if new:
            self._file.write(self._nbytes, [memoryview(b"".join(new))])
            self._nbytes += sum(map(len, new))

    def adopt(self, content: bytes) -> None:
        """Take over the list of a save that was killed."""
        names = [os.fsdecode(line) for line in content.splitlines()]
        self.note(names)
        self.names += names


def write_set(wanted: FileSet, *, durable: Durable = True, system: System = SYSTEM, fill: Fill = fill) -> None:
    """Write files that belong together, so that a reader finds all of the old ones or all of the new ones.

    Files of the earlier save that became unused are deleted. `durable="rename"` also flushes the names to the
    disk, as `"full"` does: otherwise it would be left to chance which of them survive a power failure. `fill` as in
    `write`.

    Raises what `write` raises; all old files are then unchanged.
    """
    check_durability(durable)
    durable = "full" if durable == "rename" else durable
    mark = ""
    while True:
        names = wanted.names(mark)
        if not any(os.path.lexists(os.path.join(os.path.dirname(wanted.path), name)) for name in names):
            with suppress(_TakenError):
                return _write(wanted, names, durable, system, fill)
        mark = os.urandom(4).hex()


def _write(wanted: FileSet, names: Sequence[str], durable: Durable, system: System, fill: Fill) -> None:
    like = wanted.head if os.path.exists(wanted.head) else wanted.path
    head_parts = wanted.head_parts(names)
    head = Replacement(wanted.head, total_of(head_parts), system)
    placed: list[tuple[Replacement, str]] = []
    with Replacement(wanted.path + ".left", 0, system, like=like) as file:
        journal = _Journal(file)
        try:
            journal.note(names)
            file.delete_strays(journal.adopt)
            needed, free = sum(map(total_of, [head_parts, *wanted.others])), system.free(file.directory)
            if free < needed:
                raise DiskFullError(wanted.path, needed=needed, free=free)
            for name, parts in zip(names, wanted.others):
                new = Replacement(wanted.path, total_of(parts), system, like=like)
                if not placed:
                    new.delete_strays()
                placed.append((new, os.path.join(file.directory, name)))
                _place(new, name, parts, durable, fill)
            with head:
                fill(head, head_parts, durable)
                earlier = wanted.earlier()
                journal.note(earlier)
                head.commit(durable)
        except BaseException:
            if _is_live(head):
                file.leave()
            else:
                _roll_back(placed, system)
            raise
        kept = {*names, os.path.basename(wanted.head)}
        left = [name for name in (*earlier, *filter(wanted.ours, journal.names)) if name not in kept]
        _delete(left, file, system)


def _delete(names: Iterable[str], journal: Replacement, system: System) -> None:
    """Delete files that no head names any more. Files that cannot be deleted stay on the list, for the next save."""
    try:
        for name in names:
            with suppress(FileNotFoundError):
                system.unlink(os.path.join(journal.directory, name))
    except BaseException as error:
        journal.leave()
        # The new files are complete: a failure to delete an old one must not make the save fail.
        if not isinstance(error, OSError):
            raise


def _place(new: Replacement, name: str, parts: Sequence[Part], durable: Durable, fill: Fill) -> None:
    with new:
        fill(new, parts, durable)
        try:
            new.place(name, durable)
        except FileExistsError as error:
            raise _TakenError from error


def _is_live(head: Replacement) -> bool:
    """Return whether readers find the new files. True if that is unknown, so that none of them is deleted."""
    try:
        return head.is_at(head.path)
    except OSError:
        return True


def _roll_back(placed: Sequence[tuple[Replacement, str]], system: System) -> None:
    for new, path in placed:
        with suppress(OSError):
            if new.is_at(path):
                system.unlink(path)
