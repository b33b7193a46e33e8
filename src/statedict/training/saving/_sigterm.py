"""On SIGTERM, finish the running save before the process ends, or first wait for one more save.

A signal handler runs in the main thread, between two instructions of its code. It cannot wait for a save that the main
thread itself runs, so in that case the process ends after the save; it does wait for a save in another thread.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from statedict.files import system


class OnSigterm:
    """Calls `finish` on SIGTERM, then does what SIGTERM would have done without it. `forget` removes the handler.

    `saves_first`: do so only after `saved` was called. `finish` is a method; its object is not kept alive. Raises ValueError
    outside the main thread.
    """

    def __init__(self, finish: Callable[[], None], *, saves_first: bool = False) -> None:
        if not _in_main_thread():
            raise ValueError(
                "on_sigterm=True and on_preemption need the main thread: Python handles signals only there"
            )
        self._finish = weakref.WeakMethod(finish)
        self._before = system.sigterm_handler()
        self._ours = self._handle
        self.reset()
        self._saves_first = saves_first
        system.handle_sigterm(self._ours)

    def reset(self) -> None:
        """Start again: no save is running, no signal has arrived. Also called in a forked child."""
        self._writing = 0
        self._came = self._saves_first = False
        self._ended = threading.Event()

    @property
    def saves_first(self) -> bool:
        """Whether SIGTERM still waits, or will wait, for a save."""
        return self._saves_first

    @property
    def preempted(self) -> bool:
        """Whether SIGTERM has arrived and waits for a save."""
        return self._came and self._saves_first

    def saved(self) -> None:
        """End the process after this save, as SIGTERM does, although the signal may have come to another rank only."""
        self._saves_first = False
        system.send_sigterm()

    @contextmanager
    def delayed(self) -> Iterator[None]:
        """Delay SIGTERM, in the main thread, until the context ends.

        Once the signal has arrived, other threads wait at the start of this context: the process is about to end.
        """
        if not _in_main_thread():
            if self._came and not self._saves_first:
                self._ended.wait()
            yield
            return
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            self._end_if_due()

    def forget(self) -> None:
        """Restore the previous handler, unless another one was installed since, or this is not the main thread.

        If SIGTERM waits for a save, which does not come any more, it is sent again.
        """
        preempted, self._saves_first = self.preempted, False
        if _in_main_thread() and system.sigterm_handler() == self._ours:
            system.handle_sigterm(self._before)
        if preempted:
            system.send_sigterm()

    def _handle(self, number: int, frame: Any) -> None:
        self._came = True
        # A manager that was garbage-collected does not save.
        self._saves_first = self._saves_first and self._finish() is not None
        self._end_if_due()

    def _end_if_due(self) -> None:
        if self._came and not self._writing and not self._saves_first:
            self._end()

    def _end(self) -> None:
        try:
            finish = self._finish()
            if finish is not None:
                finish()
        except Exception:  # noqa: BLE001  # no caller could catch it
            sys.excepthook(*sys.exc_info())
        finally:
            self.forget()
            try:
                self._go_on()
            finally:
                # The process is still running: another handler may keep it alive.
                self._came = False
                self._ended.set()

    def _go_on(self) -> None:
        """Do what SIGTERM did before. A later handler that called this one must not be called again."""
        if callable(self._before):
            system.call_sigterm_handler(self._before)
        elif self._before != system.IGNORED:
            system.handle_sigterm(None)
            system.send_sigterm()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
