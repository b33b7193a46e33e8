"""This process: its limits, its children and its signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._modules import MUST_CLOSE, resource, signals


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_files_limit() -> int | None:
    """Return the maximum number of files that this process may have open; None if there is no limit."""
    if resource is None:
        return None
    allowed: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed


def after_fork(call: Callable[[], object]) -> None:
    """Call this in each forked child, where processes can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


# Signals

Handler = Callable[[int, FrameType | None], Any] | int | None
IGNORED = signal.SIG_IGN


def sigterm_handler() -> Handler:
    """Return the handler of SIGTERM; None if it was not installed from Python."""
    return signal.getsignal(signal.SIGTERM)


def handle_sigterm(handler: Handler) -> None:
    """Install a handler of SIGTERM; None: end the process. Only in the main thread."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL if handler is None else handler)


def call_sigterm_handler(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Call a handler as if SIGTERM had arrived."""
    handler(signal.SIGTERM, None)


def send_sigterm() -> None:
    """Send SIGTERM to this process."""
    if hasattr(signal, "pthread_kill"):
        # To the process: the main thread may wait in a system call, which a signal to this thread would not interrupt.
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)


def die() -> None:
    """End this process at once, as a power failure would: nothing is flushed, closed or cleaned up. Its code is DIED."""
    os.kill(os.getpid(), KILL)


KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
# As `subprocess` reports it. Windows has the number of the signal for the exit code.
DIED = int(KILL if MUST_CLOSE else -KILL)


@contextmanager
def interrupted_after(seconds: float, error: type[BaseException]) -> Iterator[None]:
    """Raise `error` in this block after `seconds` of processor time.

    Does nothing in other threads than the main one, where a profiler uses the signal, and on systems without it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not (main and hasattr(signal, "setitimer") and signal.getsignal(signals.SIGPROF) == signal.SIG_DFL):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise error("it took too much processor time")

    signal.signal(signals.SIGPROF, stop)
    signals.setitimer(signals.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signals.setitimer(signals.ITIMER_PROF, 0)
        signal.signal(signals.SIGPROF, signal.SIG_DFL)
