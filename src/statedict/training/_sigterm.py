"""SIGTERM ends a training as it always does, but after the write in hand.

A signal's handler runs in the main thread, between two steps of whatever that does. A save that the main thread itself is at
cannot be waited for there, so the process ends when that save is done; one that another thread is at is waited for.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class OnSigterm:
    """Calls `finish` when SIGTERM comes, and then does what would have been done without it; `forget` undoes that.

    `finish` is a method, whose object is not kept alive. Raises ValueError outside the main thread.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        if not _in_main_thread():
            raise ValueError("on_sigterm needs the main thread: signals are handled there")
        self._finish = weakref.WeakMethod(finish)
        self._before = signal.getsignal(signal.SIGTERM)
        self._ours = self._handle
        self.begin_anew()
        signal.signal(signal.SIGTERM, self._ours)

    def begin_anew(self) -> None:
        """No save is under way and no signal has come: also what a forked child does with its copy."""
        self._writing = 0
        self._came = False
        self._ended = threading.Event()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """SIGTERM waits while this context lasts in the main thread, and comes at its end.

        Once it has come, no other thread begins what it held off: the process is about to end.
        """
        if not _in_main_thread():
            if self._came:
                self._ended.wait()
            yield
            return
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            if self._came and not self._writing:
                self._end()

    def forget(self) -> None:
        """Leave SIGTERM as it was found, unless somebody else handles it by now, or this is not the main thread."""
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) == self._ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _handle(self, number: int, frame: Any) -> None:
        self._came = True
        if not self._writing:
            self._end()

    def _end(self) -> None:
        try:
            finish = self._finish()
            if finish is not None:
                finish()
        except Exception:  # noqa: BLE001  # nobody is left to catch it
            sys.excepthook(*sys.exc_info())
        finally:
            self.forget()
            try:
                self._go_on()
            finally:
                # Still here: somebody else handles the signal, and the process may live on.
                self._came = False
                self._ended.set()

    def _go_on(self) -> None:
        """Do what the signal did before; a later handler that called ours must not be called again."""
        if callable(self._before):
            self._before(signal.SIGTERM, None)
        elif self._before != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
