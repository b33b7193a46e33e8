"""Which manager may save in a run's directory: the lock of the directory, and how it passes on within a process.

Another process is refused. Within one process a newer manager takes the directory over from an older one (a notebook's cell
that is run again), unless that is in its `with` block.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from threading import RLock
from weakref import WeakSet

from statedict.errors import LockedError, RunGoneError

from . import _directory
from ._background import Background
from ._lock import Lock


class Claim:
    """One manager's claim on a run's directory.

    Attributes:
        turn: held by the thread that uses the manager.
        held: whether the directory was ever held.
        kept: whether the manager is in its `with` block, and does not give the directory up.
    """

    def __init__(self, directory: Path, background: Background) -> None:
        self.turn = RLock()
        self.held = self.kept = False
        self._directory = directory
        self._background = background
        self._lock: Lock | None = None
        self._number = next(NUMBERS)
        CLAIMS.add(self)

    def hold(self, *, take_over: bool = True) -> None:
        """Hold the lock of what lies at the directory now, and delete what dead saves left there.

        `take_over`: take it from an older manager of this process. Raises RunGoneError where there was a directory and is
        none, LockedError where somebody else has the lock.
        """
        if self._lock is not None and not self._lock.holds(self._directory):
            self.release()
        if self._lock is None:
            with _directory.explained(self._directory):
                self.check_there()
                _directory.make(self._directory)
                self._lock = self._taken(take_over)
                self.held = True
                _directory.tidy(self._directory)

    def check_there(self) -> None:
        """Raise RunGoneError where the directory was held before and is gone."""
        if self.held and not self._directory.is_dir():
            raise RunGoneError(str(self._directory))

    def forget(self) -> None:
        """Leave lock and turn to the parent: what a forked child does with its copy."""
        self.turn = RLock()
        self.release()

    def release(self) -> None:
        """Let go of the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _taken(self, take_over: bool) -> Lock:
        try:
            return Lock(self._directory)
        except LockedError as error:
            if not error.own or not take_over:
                raise
        for claim in list(CLAIMS):
            if claim._number < self._number and not claim.kept and claim._place() == self._place():
                claim._give_up()
        return Lock(self._directory)

    def _place(self) -> str:
        return os.path.realpath(self._directory)

    def _give_up(self) -> None:
        """Release the lock when nothing is written any more."""
        with self.turn:
            self._background.settle()
            self.release()


CLAIMS: WeakSet[Claim] = WeakSet()
NUMBERS = count()
