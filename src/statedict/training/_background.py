"""One background writer: at most one save in flight, at most one waiting.

The thread is no daemon, so that the interpreter waits for the save in hand before it ends. An error is kept, and raised by
the next call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

Job = Callable[[], None]
Busy = Literal["wait", "replace"]


class Background:
    """Runs jobs one after the other in a thread that lives while there are any."""

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._running = False
        self._waiting: tuple[Job, Job] | None = None
        self._error: BaseException | None = None

    @property
    def running(self) -> bool:
        return self._running

    def submit(self, job: Job, dropped: Job) -> None:
        """Run `job` after the one in flight; one that is waiting already makes place, and its `dropped` is called."""
        with self._state:
            replaced, self._waiting = self._waiting, (job, dropped)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="statedict-save").start()
        if replaced is not None:
            replaced[1]()

    def wait(self) -> None:
        """Return when nothing is in flight or waiting; raise what went wrong since the last call."""
        with self._state:
            self._state.wait_for(lambda: not self._running)
        self.raise_error()

    def raise_error(self) -> None:
        """Raise what went wrong since the last call, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            with self._state:
                if self._waiting is None:
                    self._running = False
                    self._state.notify_all()
                    return
                (job, _), self._waiting = self._waiting, None
            try:
                job()
            except BaseException as error:  # noqa: BLE001  # kept for the thread that asked for the save
                self._error = error
