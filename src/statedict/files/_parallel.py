"""Run calls that release the GIL (reads, checksums) on a few threads.

The calling thread takes part, so that a single job needs no thread, and Ctrl-C stops all of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Job = TypeVar("Job")

# Four streams saturate one disk or memory bus; more threads only compete for the GIL.
THREADS = min(4, os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))

# Threads waiting for a network, independent of the number of processors, and the bytes that each requests at a time.
# Together 6 MiB are in flight: 125 MB/s at 50 ms per round trip.
WAITING = 12
PORTION = 512 << 10


def spread(work: Callable[[Job], None], jobs: Sequence[Job], threads: int = THREADS) -> None:
    """Call `work(job)` for every job on at most `threads` threads; return when all are done, raise the first error."""
    threads = min(threads, len(jobs))
    if threads <= 1:
        for job in jobs:
            work(job)
        return
    waiting = iter(jobs)
    errors: list[BaseException] = []
    lock = threading.Lock()

    def run_jobs() -> None:
        while not errors:
            with lock:
                job = next(waiting, lock)
            if job is lock:
                return
            try:
                work(job)  # type: ignore[arg-type]
            except BaseException as error:  # noqa: BLE001  # raised again by the calling thread
                errors.append(error)

    others: list[threading.Thread] = []
    try:
        for _ in range(threads - 1):
            other = threading.Thread(target=run_jobs, name="statedict-io", daemon=True)
            try:
                other.start()
            except RuntimeError:
                break  # the system refuses more threads: the existing ones do all the work
            others.append(other)
        run_jobs()
    except BaseException as error:
        errors.append(error)
        raise
    finally:
        for other in others:
            other.join()
    if errors:
        raise errors[0]
