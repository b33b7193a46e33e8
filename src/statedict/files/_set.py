"""Several files that belong together: a reader finds the old ones or the new ones, and never some of each.

Theory of operation. The new files get names that no file has, so that no old one is touched; then the head, the file that
names the others, takes the old head's place by one rename. Until then it leads to the old files, from then on to the new
ones, and only then are the old ones deleted. A save that is killed may leave files that no head names. Their names are
written down before they are made, in a temporary file that is locked meanwhile (see `_atomic`); the next save to the same
path finds that list, and deletes what is on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..errors import DiskFullError
from ._atomic import Durable, Replacement, check_durability
from ._part import Part
from ._system import SYSTEM, System
from ._write import fill, total_of


class FileSet(NamedTuple):
    """What is to be written.

    Attributes:
        path: what all the files are called after; they lie in its directory.
        head: the path of the file that names the others.
        head_parts: its content, where the others have these names.
        others: the content of each of the others.
        names: names for the others, made with a mark that tells them from earlier ones; `""` asks for those without one.
        earlier: the names of the files that are there now from an earlier save, the head that names the others first.
        ours: whether a file of that name can be one that an earlier save to `path` made.
    """

    path: str
    head: str
    head_parts: Callable[[Sequence[str]], Sequence[Part]]
    others: Sequence[Sequence[Part]]
    names: Callable[[str], Sequence[str]]
    earlier: Callable[[], Sequence[str]]
    ours: Callable[[str], bool]


class _TakenError(Exception):
    """Another save has made a file of a name that this one had chosen."""


class _Journal:
    """The names of files that the head may come not to name, written down before they are made or left over."""

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


def write_set(wanted: FileSet, *, durable: Durable = True, system: System = SYSTEM) -> None:
    """Write files that belong together, so that a reader finds all of the old ones or all of the new ones.

    Files of the earlier save that the new ones leave over are deleted. With `durable="rename"` the names are forced to the
    disk as with `"full"`: which of them get there would be left to chance otherwise.

    Raises what `write` raises; all old files are then as they were.
    """
    check_durability(durable)
    durable = "full" if durable == "rename" else durable
    mark = ""
    while True:
        names = wanted.names(mark)
        if not any(os.path.lexists(os.path.join(os.path.dirname(wanted.path), name)) for name in names):
            with suppress(_TakenError):
                return _write(wanted, names, durable, system)
        mark = os.urandom(4).hex()


def _write(wanted: FileSet, names: Sequence[str], durable: Durable, system: System) -> None:
    like = wanted.head if os.path.exists(wanted.head) else wanted.path
    head_parts = wanted.head_parts(names)
    head = Replacement(wanted.head, total_of(head_parts), system)
    placed: list[tuple[Replacement, str]] = []
    with Replacement(wanted.path + ".left", 0, system, like=like) as file:
        journal = _Journal(file)
        try:
            journal.note(names)
            file.delete_strays(journal.adopt)
            _require_room(wanted, sum(map(total_of, [head_parts, *wanted.others])), file.directory, system)
            for name, parts in zip(names, wanted.others):
                new = Replacement(wanted.path, total_of(parts), system, like=like)
                if not placed:
                    new.delete_strays()
                placed.append((new, os.path.join(file.directory, name)))
                _place(new, name, parts, durable)
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
    """Delete files that no head names any more. The list of those that cannot be deleted stays, for the next save."""
    try:
        for name in names:
            with suppress(FileNotFoundError):
                system.unlink(os.path.join(journal.directory, name))
    except BaseException as error:
        journal.leave()
        # The new files are there, whole: that an old one cannot be deleted is no reason to say that they were not saved.
        if not isinstance(error, OSError):
            raise


def _require_room(wanted: FileSet, nbytes: int, directory: str, system: System) -> None:
    """Raise DiskFullError where there is no room for all of the files: before the first is written."""
    free = system.free(directory)
    if free < nbytes:
        raise DiskFullError(wanted.path, needed=nbytes, free=free)


def _place(new: Replacement, name: str, parts: Sequence[Part], durable: Durable) -> None:
    with new:
        fill(new, parts, durable)
        try:
            new.place(name, durable)
        except FileExistsError as error:
            raise _TakenError from error


def _is_live(head: Replacement) -> bool:
    """Whether readers find the new files. Where that cannot be found out, yes: none of them is deleted then."""
    try:
        return head.is_at(head.path)
    except OSError:
        return True


def _roll_back(placed: Sequence[tuple[Replacement, str]], system: System) -> None:
    for new, path in placed:
        with suppress(OSError):
            if new.is_at(path):
                system.unlink(path)
