"""A background thread for saves: at most one save in flight, at most one waiting.

The thread is not a daemon, so the interpreter waits for the running save before it exits. An error is stored and raised by
the next call. If a thread cannot be started, the job runs in the thread that calls `submit` or waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

Job = Callable[[], None]
Busy = Literal["wait", "replace"]


class Background:
    """Runs jobs one after the other, in a thread that ends after the last job."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset, without a thread and without jobs. Called in a forked child, where the parent's thread does not exist."""
        self._state = threading.Condition()
        self._waiting: tuple[Job, Job] | None = None
        # Whether a job is running, and whether a thread was started that has not yet taken its first job.
        self._active = self._expected = False
        self._error: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether a job is running or waiting."""
        return self._active or self._waiting is not None

    def submit(self, job: Job, dropped: Job) -> None:
        """Run `job` after the running one. A job that is already waiting is replaced, and its `dropped` is called."""
        with self._state:
            # A job whose thread is about to take it counts as running.
            self._state.wait_for(lambda: not self._expected)
            replaced, self._waiting = self._waiting, (job, dropped)
            # The thread waits for this lock, so it does not keep the interpreter from the caller, for up to 5 ms.
            started = self._active or self._start()
        if replaced is not None:
            replaced[1]()
        if not started:
            self._run()

    def wait(self) -> None:
        """Wait until no job is running or waiting; raise the error that occurred since the last call, if any."""
        self.settle()
        self.raise_error()

    def settle(self) -> None:
        """Wait until no job is running or waiting. An error is stored for the next call."""
        while self.running:
            with self._state:
                self._state.wait_for(lambda: not self._active and not self._expected)
            self._run()

    def raise_error(self) -> None:
        """Raise the stored error, once."""
        with self._state:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _start(self) -> bool:
        """Start a thread for the waiting job; return whether that is possible. The caller holds the lock."""
        self._expected = True
        try:
            threading.Thread(target=self._run, name="statedict-save").start()
        except RuntimeError:
            # The system cannot create more threads, or the interpreter is shutting down.
            self._expected = False
        except BaseException:
            # Interrupted (KeyboardInterrupt): the thread may or may not have started. If not, `settle` runs the job.
            self._expected = False
            self._state.notify_all()
            raise
        return self._expected

    def _run(self) -> None:
        """Run the waiting jobs one after the other, unless another thread is doing so."""
        while self._take():
            pass

    def _take(self) -> bool:
        """Run the waiting job. Return False if no job is waiting or another one is running."""
        taken = False
        try:
            with self._state:
                self._expected = False
                self._state.notify_all()
                if self._active or self._waiting is None:
                    return False
                taken = self._active = True
                (job, _), self._waiting = self._waiting, None
            job()
        except BaseException as error:  # noqa: BLE001  # stored, and raised in the thread that requested the save
            with self._state:
                self._error = error
        finally:
            if taken:
                with self._state:
                    self._active = False
                    self._state.notify_all()
        return taken
