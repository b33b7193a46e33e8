"""Calls that may take forever, with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from datetime import timedelta
from threading import Thread
from time import monotonic
from typing import TypeVar

T = TypeVar("T")
# Seconds between two checks for events that nothing reports.
LOOK = 1.0


def within(limit: timedelta, act: Callable[[], T]) -> T:
    """Return what `act` returns, or raise what it raises; TimeoutError if it takes longer (its thread goes on)."""
    return awaited(started(act), monotonic() + limit.total_seconds())


def started(act: Callable[[], T], *, in_thread: bool = True) -> Future[T]:
    """Call a function in a thread, or in this one if the system refuses more threads, which then has no time limit."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(act())
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            result.set_exception(error)

    try:
        if in_thread:
            Thread(target=run, name="statedict-waiting", daemon=True).start()
    except RuntimeError:
        in_thread = False
    if not in_thread:
        run()
    return result


def awaited(result: Future[T], until: float, check: Callable[[], object] = lambda: None) -> T:
    """Return the result of a call that was started, or raise its error; TimeoutError if it takes longer.

    `until`: a time of `monotonic`. `check` is called every second, and raises an error if the call will never end.
    """
    while not wait([result], max(0, min(until - monotonic(), LOOK))).done:
        if monotonic() >= until:
            raise TimeoutError
        try:
            check()
        except RuntimeError:
            # The call may have ended just before the check.
            if not wait([result], LOOK).done:
                raise
    return result.result()
