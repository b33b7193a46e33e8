"""One background writer: at most one save in flight, at most one waiting.

The thread is not a daemon, so that the interpreter waits for the save in hand before it ends. An error is kept, and raised
by the next call. A job is never lost with its thread: where none could be started, whoever waits does the job.
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
        self.forget()

    def forget(self) -> None:
        """Begin anew without a thread or a job: a forked child does so with its copy, whose thread is its parent's."""
        self._state = threading.Condition()
        self._waiting: tuple[Job, Job] | None = None
        # Whether a job is under way, and whether a thread was started that has not yet looked for one.
        self._active = self._expected = False
        self._error: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether a job is under way or waiting."""
        return self._active or self._waiting is not None

    def submit(self, job: Job, dropped: Job) -> None:
        """Run `job` after the one in flight; one that is waiting already makes place, and its `dropped` is called."""
        with self._state:
            replaced, self._waiting = self._waiting, (job, dropped)
            needs_thread = not self._active and not self._expected
        if replaced is not None:
            replaced[1]()
        if needs_thread:
            self._start()

    def wait(self) -> None:
        """Return when nothing is in flight or waiting; raise what went wrong since the last call."""
        self.settle()
        self.raise_error()

    def settle(self) -> None:
        """Return when nothing is in flight or waiting; what went wrong is raised by the next call."""
        while self.running:
            with self._state:
                self._state.wait_for(lambda: not self._active and not self._expected)
            self._run()

    def raise_error(self) -> None:
        """Raise what went wrong since the last call, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _start(self) -> None:
        """Start a thread for the job that waits, or do it here and now where none can be started."""
        self._expected = started = True
        try:
            threading.Thread(target=self._run, name="statedict-save").start()
        except RuntimeError:
            # The system gives no more threads, or the interpreter is ending.
            started = False
        except BaseException:
            # Interrupted: the thread may have been started or not. If not, whoever waits does the job.
            self._expect_none()
            raise
        if not started:
            self._expect_none()
            self._run()

    def _expect_none(self) -> None:
        with self._state:
            self._expected = False
            self._state.notify_all()

    def _run(self) -> None:
        """Do the jobs that wait, one after the other, unless another thread is doing so."""
        while self._take():
            pass

    def _take(self) -> bool:
        """Do the job that waits; False where there is none, or another one is under way."""
        taken = False
        try:
            with self._state:
                self._expected = False
                if self._active or self._waiting is None:
                    self._state.notify_all()
                    return False
                taken = self._active = True
                (job, _), self._waiting = self._waiting, None
            job()
        except BaseException as error:  # noqa: BLE001  # kept for the thread that asked for the save
            self._error = error
        finally:
            if taken:
                with self._state:
                    self._active = False
                    self._state.notify_all()
        return taken
