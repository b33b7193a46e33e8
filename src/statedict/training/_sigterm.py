"""SIGTERM ends a training as it always does, but after the write in hand.

A signal's handler runs in the main thread, between two steps of whatever that does: a save that the thread itself is at
cannot be waited for there, so the end comes when it is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class OnSigterm:
    """Calls `finish` when SIGTERM comes, and then does what would have been done without it; `forget` undoes that.

    Raises ValueError outside the main thread.
    """

    def __init__(self, finish: Callable[[], None]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("on_sigterm needs the main thread: signals are handled there")
        self._finish = finish
        self._writing = self._came = False
        self._before = signal.getsignal(signal.SIGTERM)
        self._ours = self._handle
        signal.signal(signal.SIGTERM, self._ours)

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """SIGTERM waits while this context lasts, and comes at its end."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            if self._came:
                self._end()

    def forget(self) -> None:
        """Leave SIGTERM as it was found, unless somebody else handles it by now."""
        if signal.getsignal(signal.SIGTERM) == self._ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)

    def _handle(self, number: int, frame: Any) -> None:
        self._came = True
        if not self._writing:
            self._end()

    def _end(self) -> None:
        try:
            self._finish()
        finally:
            self.forget()
            os.kill(os.getpid(), signal.SIGTERM)
