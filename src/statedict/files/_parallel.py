"""A few threads for calls that release the GIL: reads, checksums.

The calling thread works too, so that one job costs no thread, and Ctrl-C stops all of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Job = TypeVar("Job")

# One disk or one memory bus is busy with four streams; more threads only fight for the GIL.
THREADS = min(4, os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))

# Threads that wait for a network, whatever the processors, and what each asks for at a time: 6 MiB are under way, which at
# 50 ms a round trip is 125 MB/s.
WAITING = 12
PORTION = 512 << 10


def spread(work: Callable[[Job], None], jobs: Sequence[Job], threads: int = THREADS) -> None:
    """`work(job)` for every job, on at most `threads` threads; returns when all are done, raises the first error."""
    threads = min(threads, len(jobs))
    if threads <= 1:
        for job in jobs:
            work(job)
        return
    waiting = iter(jobs)
    errors: list[BaseException] = []
    turn = threading.Lock()

    def toil() -> None:
        while not errors:
            with turn:
                job = next(waiting, turn)
            if job is turn:
                return
            try:
                work(job)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001  # raised again by the calling thread
                errors.append(error)

    others: list[threading.Thread] = []
    try:
        for _ in range(threads - 1):
            other = threading.Thread(target=toil, name="statedict-io", daemon=True)
            try:
                other.start()
            except RuntimeError:
                break  # the system gives no more threads: those that there are do all of it
            others.append(other)
        toil()
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        for other in others:
            other.join()
    if errors:
        raise errors[0]
