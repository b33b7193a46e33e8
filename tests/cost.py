"""What code costs, by measures that a busy machine does not change: function calls, and ratios of processor times."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable


def calls(act: Callable[[], object]) -> int:
    """Return how many functions (of Python and of C) this thread calls while it runs `act`.

    The garbage of earlier tests is left alone: it would be collected at any time, with calls of its own.
    """
    count = 0

    def count_call(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()
    sys.setprofile(count_call)
    try:
        act()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return count


def yardstick() -> float:
    """Return this thread's processor time for a fixed amount of ordinary Python code: about 0.1 s on a machine of 2024."""
    table: dict[int, tuple[int, str]] = {}

    def work() -> None:
        for n in range(600_000):
            table[n & 1023] = n, str(n & 15)

    return seconds(work, 3)


def seconds(act: Callable[[], object], runs: int = 5) -> float:
    """Return this thread's processor time for `act`: the minimum of several runs."""
    times = []
    for _ in range(runs):
        start = time.thread_time()
        act()
        times.append(time.thread_time() - start)
    return min(times)
