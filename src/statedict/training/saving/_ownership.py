"""Which manager may save in a run's directory: the lock, and how it is passed between managers of one process.

Other processes are refused. Within a process, a newer manager takes the directory over from an older one (a notebook cell
that is run again), unless the older one is in its `with` block.
"""

from __future__ import annotations

from itertools import count
from threading import RLock
from weakref import WeakValueDictionary

from statedict.errors import LockedError, RunGoneError

from .._run import RunLock, TrainingRun
from ._background import Background


class Ownership:
    """One manager's hold on a run's directory.

    Attributes:
        mutex: held by the thread that uses the manager.
        held: whether the run was ever locked.
        in_use: whether the manager is in its `with` block, and does not hand the directory over.
    """

    def __init__(self, run: TrainingRun, background: Background) -> None:
        self.mutex = RLock()
        self.held = self.in_use = False
        self._run = run
        self._background = background
        self._lock: RunLock | None = None
        self._number = next(NUMBERS)
        OWNERSHIPS[self._number] = self

    def hold(self, *, take_over: bool = True, seize: bool = False) -> None:
        """Lock the run, creating it if needed, and delete what interrupted saves left there.

        `take_over`: take the lock from an older manager of this process; `seize`: as in `TrainingRun.lock`. Raises
        RunGoneError if the run was deleted since it was locked, LockedError if another manager holds the lock.
        """
        with self._run.translated():
            if self._lock is not None and not self._lock.holds():
                self.release()
            if self._lock is None:
                self.check_exists()
                self._lock = self._locked(take_over, seize)
                self.held = True
                self._run.tidy()

    def check_exists(self) -> None:
        """Raise RunGoneError if the run was locked before and has been deleted."""
        if self.held and not self._run.exists():
            raise RunGoneError(self._run.name)

    def forget(self) -> None:
        """Drop the lock and the mutex, which belong to the parent. Called in a forked child."""
        self.mutex = RLock()
        self._lock = None

    def release(self) -> None:
        """Unlock the directory."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _locked(self, take_over: bool, seize: bool) -> RunLock:
        try:
            return self._run.lock(seize=seize)
        except LockedError as error:
            if not error.own or not take_over:
                raise
        for other in (reference() for reference in OWNERSHIPS.valuerefs()):
            if other and other._number < self._number and not other.in_use and other._run.real == self._run.real:
                other._give_up()
        return self._run.lock(seize=seize)

    def _give_up(self) -> None:
        """Release the lock once no save is running."""
        with self.mutex:
            self._background.settle()
            self.release()


# By number. `valuerefs` can be called while other threads add some; a WeakSet cannot be iterated then, before Python 3.14.
OWNERSHIPS: WeakValueDictionary[int, Ownership] = WeakValueDictionary()
NUMBERS = count()
