"""Which manager may save in a run's directory: the lock, and how it is passed between managers of one process.

Other processes are refused. Within a process, a newer manager takes the directory over from an older one (a notebook cell
that is run again), unless the older one is in its `with` block.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from threading import RLock
from weakref import WeakSet

from statedict.errors import LockedError, RunGoneError

from ..run_directory import _changes
from ..run_directory._lock import Lock
from ._background import Background


class Ownership:
    """One manager's hold on a run's directory.

    Attributes:
        mutex: held by the thread that uses the manager.
        held: whether the directory was ever locked.
        in_use: whether the manager is in its `with` block, and does not hand the directory over.
    """

    def __init__(self, directory: Path, background: Background) -> None:
        self.mutex = RLock()
        self.held = self.in_use = False
        self._directory = directory
        self._background = background
        self._lock: Lock | None = None
        self._number = next(NUMBERS)
        OWNERSHIPS.add(self)

    def hold(self, *, take_over: bool = True) -> None:
        """Lock the directory, creating it if needed, and delete what interrupted saves left there.

        `take_over`: take the lock from an older manager of this process. Raises RunGoneError if the directory was deleted
        since it was locked, LockedError if another manager holds the lock.
        """
        if self._lock is not None and not self._lock.holds(self._directory):
            self.release()
        if self._lock is None:
            with _changes.translated(self._directory):
                self.check_exists()
                _changes.make(self._directory)
                self._lock = self._locked(take_over)
                self.held = True
                # A process may have died before it could flush its last save, and older ones may be deleted now.
                _changes.sync(self._directory)
                _changes.tidy(self._directory)

    def check_exists(self) -> None:
        """Raise RunGoneError if the directory was locked before and has been deleted."""
        if self.held and not self._directory.is_dir():
            raise RunGoneError(str(self._directory))

    def forget(self) -> None:
        """Drop the lock and the mutex, which belong to the parent. Called in a forked child."""
        self.mutex = RLock()
        self.release()

    def release(self) -> None:
        """Unlock the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _locked(self, take_over: bool) -> Lock:
        try:
            return Lock(self._directory)
        except LockedError as error:
            if not error.own or not take_over:
                raise
        for ownership in list(OWNERSHIPS):
            if ownership._number < self._number and not ownership.in_use and ownership._place() == self._place():
                ownership._give_up()
        return Lock(self._directory)

    def _place(self) -> str:
        return os.path.realpath(self._directory)

    def _give_up(self) -> None:
        """Release the lock once no save is running."""
        with self.mutex:
            self._background.settle()
            self.release()


OWNERSHIPS: WeakSet[Ownership] = WeakSet()
NUMBERS = count()
