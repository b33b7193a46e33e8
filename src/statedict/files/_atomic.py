"""Replace a file atomically, safely against kills, full disks and power failures.

Theory of operation. The new file is written next to the old one under a temporary name, `.NAME.statedict-PID-RAND.tmp`,
with its space reserved first, and then renamed over the old one, which is atomic. The file is flushed to the disk
before the rename (fsync of the file) and the rename after it (fsync of the directory). The temporary file is locked:
when the process dies, the lock is released, and the next save of the same name recognises the file as abandoned and
deletes it. An error of fsync is final: the kernel may have dropped the pages, so a second fsync could succeed although
the data is lost.

Freeing a large file takes about as long as writing it, so the old file is kept open across the rename and closed by a
thread.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Self

from ..errors import DiskFullError, SaveError
from ._open import kind_of
from ._output import DURABILITY, Durable, Output
from .system import CREATE, DIRECTORY, HOLD, MUST_CLOSE, READ_OWN, UNSUPPORTED, System, names_file

FULL = {errno.ENOSPC, errno.EDQUOT}
# A file name has at most 255 bytes. The temporary name is the file's own name, cut to this length, plus up to 40 bytes.
STEM = 200
# Old files of at least this many bytes are freed by a thread.
LARGE = 16 << 20


class Replacement(Output):
    """A new file next to `path`: a context manager in which it is written and then committed; otherwise it is removed.

    With `like` it is one of several files that belong together and gets its name from `place`; `path` is what they are
    named after, and `like` is the file whose mode and owner they take.

    Raises SaveError if `path` (or `like`) is not a regular file, PermissionError if replacing it would take away
    others' access, DiskFullError if `nbytes` do not fit, and an OSError that names the file for other errors of the
    system.
    """

    def __init__(self, path: str | os.PathLike[str], nbytes: int, system: System, *, like: str | None = None) -> None:
        directory, name = os.path.split(os.fspath(path))
        full = os.path.realpath(path) if like is None else os.path.join(os.path.realpath(directory), name)
        super().__init__(full, system, nbytes=nbytes)
        self._like = like or self.path
        self._is_part = like is not None
        self._identity: tuple[int, int] | None = None
        self.directory, name = os.path.split(self.path)
        self._stem = f".{_cut(name)}.statedict-"
        self._old_nbytes = 0

    def __enter__(self) -> Self:
        old = self._status()
        self._old_nbytes = 0 if old is None else old.st_size
        if not self._is_part:
            self.delete_strays()
        try:
            with self._naming():
                # Windows does not delete a file that its owner may not write.
                self._create(0o666 if old is None else stat.S_IMODE(old.st_mode) & 0o666 | stat.S_IWUSR)
                if old is not None:
                    self._inherit(old)
                self._reserve()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            with suppress(OSError):
                self._close()
        finally:
            if self.temporary:
                with suppress(OSError):
                    self._system.unlink(self.temporary)
        if isinstance(error, OSError) and not isinstance(error, DiskFullError) and error.errno in FULL:
            raise DiskFullError(self.path, needed=self.nbytes, free=self._system.free(self.directory)) from error

    def commit(self, durable: Durable) -> None:
        """Replace the old file with the new one."""
        self._take_name(durable, self._replace)

    def place(self, name: str, durable: Durable) -> None:
        """Give the new file that name in its directory; raise FileExistsError if the name is taken."""
        self._take_name(durable, lambda: self._claim(os.path.join(self.directory, name)))

    def _take_name(self, durable: Durable, take: Callable[[], None]) -> None:
        first, then = DURABILITY[durable]
        with self._naming(), ExitStack() as stack:
            if first:
                self._system.sync(self._fd)
            # A directory that cannot be opened must be noticed before anything is replaced.
            flusher = self._flusher(stack) if then else None
            if MUST_CLOSE:
                self._close()
            take()
            self.temporary = ""
            if flusher is not None:
                self._system.sync(flusher)
            self._close()

    def _replace(self) -> None:
        old = -1
        if self._old_nbytes >= LARGE and not MUST_CLOSE:
            # An open descriptor keeps the old file from being freed by the rename.
            with suppress(OSError):
                old = self._system.open(self.path, HOLD)
        try:
            self._system.replace(self.temporary, self.path)
        except PermissionError as error:
            if MUST_CLOSE:
                reason = (
                    "this file may not be replaced, or it is open, in this program or another one; if it was opened with "
                    "statedict.open, close that first, or save to a new name"
                )
                raise PermissionError(errno.EACCES, reason, self.path) from error
            raise
        finally:
            if old >= 0:
                _close_in_thread(self._system, old)

    def _claim(self, path: str) -> None:
        try:
            self._system.link(self.temporary, path)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            # This file system does not have hard links.
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
            self._system.replace(self.temporary, path)
        else:
            self._system.unlink(self.temporary)

    def leave(self) -> None:
        """Keep the new file under its temporary name, where the next save finds it."""
        self.temporary = ""

    def is_at(self, path: str) -> bool:
        """Return whether the new file is at that path."""
        try:
            status = self._system.stat(path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _status(self) -> os.stat_result | None:
        try:
            status = self._system.stat(self._like)
        except FileNotFoundError:
            if not names_file(self.path):
                raise SaveError(
                    f"{self.path}: a file of this system cannot have this name; save to a new name"
                ) from None
            return None
        if not stat.S_ISREG(status.st_mode):
            advice = "pass the path of a file in it" if stat.S_ISDIR(status.st_mode) else "save to a new name"
            raise SaveError(f"{self._like}: this is {kind_of(status.st_mode)}, not a regular file; {advice}")
        return status

    def _create(self, mode: int) -> None:
        while True:
            name = f"{self._stem}{os.getpid()}-{os.urandom(4).hex()}.tmp"
            # Set before the file is created: an interrupt may come between the two.
            self.temporary = os.path.join(self.directory, name)
            try:
                self._fd = self._system.open(self.temporary, CREATE, mode)
            except FileExistsError:
                continue
            except (FileNotFoundError, PermissionError) as error:
                if MUST_CLOSE and isinstance(error, FileNotFoundError) and os.path.isdir(self.directory):
                    reason = f"the temporary path of {len(self.temporary)} characters is too long for this system"
                    raise OSError(errno.ENAMETOOLONG, reason, self.path) from None
                # Report the directory, not a temporary name that the caller has never seen.
                raise type(error)(error.errno, f"{error.strerror} to save in", self.directory) from None
            self._lock()
            status = self._system.fstat(self._fd)
            self._identity = status.st_dev, status.st_ino
            if status.st_nlink:
                return
            # Between creation and lock, another save took this file for an abandoned one and deleted it.
            self._close()

    def _lock(self) -> None:
        try:
            self._system.lock(self._fd, wait=True)
        except OSError as error:
            # Some network file systems do not support locks. Abandoned files are never deleted there, which is safe.
            if error.errno not in UNSUPPORTED:
                raise

    def delete_strays(self, on_content: Callable[[bytes], None] | None = None) -> int:
        """Delete temporary files left by killed saves of this name, after calling `on_content` with the content of each.

        Returns how many could not be deleted: those of saves in progress.
        """
        stray = re.compile(re.escape(self._stem) + r"\d+-[0-9a-f]{8}\.tmp")
        left = 0
        with suppress(OSError):
            for name in self._system.list(self.directory):
                if stray.fullmatch(name):
                    left += not self._delete_if_dead(os.path.join(self.directory, name), on_content)
        return left

    def _delete_if_dead(self, path: str, on_content: Callable[[bytes], None] | None) -> bool:
        with suppress(OSError), ExitStack() as stack:
            fd = self._system.open(path, READ_OWN)
            stack.callback(self._system.close, fd)
            self._system.lock(fd, wait=False)
            if on_content is not None:
                on_content(self._system.read(fd))
            if MUST_CLOSE:
                stack.close()
            self._system.unlink(path)
            return True
        return False

    def _inherit(self, old: os.stat_result) -> None:
        """Copy the old file's mode, and its owner and group as far as this user is allowed to.

        Raises PermissionError if users who can read the old file could not read the new one.
        """
        new = self._system.fstat(self._fd)
        kept = new.st_uid == old.st_uid, new.st_gid == old.st_gid
        if not all(kept):
            kept = self._set_owner(old, kept)
        mode = kept_mode(stat.S_IMODE(old.st_mode), *kept)
        if mode is None:
            reason = (
                "replacing this file would lock out others who may read it now; delete it first, or save to a new name"
            )
            raise PermissionError(errno.EACCES, reason, self._like)
        self._system.mode(self._fd, mode)

    def _set_owner(self, old: os.stat_result, kept: tuple[bool, bool]) -> tuple[bool, bool]:
        """Give the new file the old one's owner and group, or only the group; return which of them it then has."""
        for user in (old.st_uid, -1):
            try:
                self._system.own(self._fd, user, old.st_gid)
                return kept[0] or user >= 0, True
            except OSError as error:
                if error.errno not in UNSUPPORTED | {errno.EACCES}:
                    raise
        return kept

    def _reserve(self) -> None:
        if not self.nbytes:
            return
        try:
            self._system.allocate(self._fd, self.nbytes)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            if self._system.free(self.directory) < self.nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path) from error

    def _flusher(self, stack: ExitStack) -> int | None:
        """Return the descriptor to fsync so that the new name reaches the disk: that of the directory. If the directory
        is writable but not readable, the file's own, whose fsync includes the name on the usual file systems. None if this
        system cannot flush directories.
        """
        if DIRECTORY is None:
            return None
        try:
            fd = self._system.open(self.directory, DIRECTORY)
        except PermissionError:
            return self._fd
        stack.callback(self._system.close, fd)
        return fd


def _cut(name: str) -> str:
    """Cut a file's name to at most STEM bytes, between two characters: not every system has names of other bytes."""
    while len(os.fsencode(name)) > STEM:
        name = name[:-1]
    return name


def kept_mode(mode: int, owner: bool, group: bool) -> int | None:
    """Return the mode for a file that replaces one with `mode`; `owner` and `group` tell whether it kept these. None if
    a user who can read the old file could not read the new one. A different group gets only the permissions of others.

    >>> oct(kept_mode(0o664, owner=False, group=True)), oct(kept_mode(0o664, owner=True, group=False))
    ('0o664', '0o644')
    >>> kept_mode(0o660, owner=True, group=False) is kept_mode(0o600, owner=False, group=True) is None
    True
    """
    everybody = bool(mode & 0o004)
    if not (group or everybody) and mode & 0o040:
        return None
    if not (owner or everybody or (group and mode & 0o040)):
        return None
    if not group:
        mode = mode & ~0o070 | (mode & 0o007) << 3
    return mode if owner and group else mode & 0o777


def _close_in_thread(system: System, fd: int) -> None:
    def close() -> None:
        with suppress(OSError):
            system.close(fd)

    try:
        threading.Thread(target=close, name="statedict-free", daemon=True).start()
    except RuntimeError:  # The interpreter is shutting down, or there are too many threads.
        close()


def check_durability(durable: Durable) -> None:
    """Raise ValueError if `durable` is not a key of DURABILITY."""
    if durable not in DURABILITY:
        raise ValueError(f"durable must be one of {', '.join(map(repr, DURABILITY))}, not {durable!r}")
