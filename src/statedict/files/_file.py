"""The File protocol: a name, a size, and bytes at offsets; and how batches of reads are planned and run on threads.

A File does not know what its bytes mean. Readers request many spans at once (`read_into`). The spans are sorted; large ones
are split so that threads can share them; small neighbours become one vectored read, with the gaps read into scratch memory.
Pieces of 1–8 MiB were fastest, and a system call costs as much as copying a few KiB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import accumulate
from operator import add, itemgetter
from typing import NamedTuple, Protocol, TypeVar

from ..errors import TruncatedError
from .system import MOST_BUFFERS, processors


class Span(NamedTuple):
    """Bytes `offset … offset + len(into)` of a file, to be read into `into` (writable, contiguous, format `B`)."""

    offset: int
    into: memoryview


class File(Protocol):
    """A source of bytes. `name` is for messages, `size` is in bytes; this is its whole surface."""

    name: str
    size: int

    @property
    def far(self) -> bool:
        """Whether each read takes a network round trip: readers then request only what they need, in large batches."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return exactly `nbytes` bytes from `offset`; raise TruncatedError if the file does not have them."""

    def read_into(self, spans: Sequence[Span]) -> None:
        """Fill every destination, in any order."""

    def mapped(self) -> memoryview | None:
        """Return the whole file as memory, or None if it cannot be mapped. Changes to the memory stay in this process.

        Only for callers who asked for a mapping: reading a mapping of a file that was truncated meanwhile kills the
        process (SIGBUS), and rewriting the file in place changes the memory.
        """

    def lease(self, until: ExitStack) -> Callable[[], bool] | None:
        """Keep the file from being changed until the stack is closed, if possible, as `system.lease` does."""

    def beside(self, name: str) -> File | None:
        """Return the file with that plain name in the same folder; None if this file is not in a folder.

        Raises OSError if it cannot be opened.
        """

    def check_unchanged(self) -> None:
        """Raise FileChangedError if the file is not the one that was opened."""

    def close(self, at: int = 0) -> None:
        """Close the file; leave a caller's file object open, positioned at byte `at`. Views already returned stay
        valid.
        """


def check_inside(file: File, offset: int, nbytes: int) -> None:
    """Raise TruncatedError unless the file has `nbytes` bytes at `offset`."""
    if offset < 0 or nbytes < 0 or offset + nbytes > file.size:
        raise TruncatedError(
            f"{nbytes:,} bytes are needed here, but the file has only {file.size:,}", file=file.name, offset=offset
        )


def fetch(file: File, extents: Sequence[tuple[int, int]]) -> list[memoryview]:
    """Read many small extents (offset, bytes) in one batch.

    Raises TruncatedError if an extent is outside the file.
    """
    if not extents:
        return []
    starts, sizes = zip(*extents)
    stops = list(map(add, starts, sizes))
    if min(starts) < 0 or min(sizes) < 0 or max(stops) > file.size:
        for offset, nbytes in extents:
            check_inside(file, offset, nbytes)
    block = memoryview(bytearray(sum(nbytes for _, nbytes in extents)))
    ends = accumulate(nbytes for _, nbytes in extents)
    places = [block[end - nbytes : end] for (_, nbytes), end in zip(extents, ends)]
    file.read_into([Span(offset, into) for (offset, _), into in zip(extents, places)])
    return places


PIECE = 4 << 20
GAP = 16 << 10


class VectoredRead(NamedTuple):
    """One call: consecutive bytes from `offset`, read into the buffers in turn."""

    offset: int
    nbytes: int
    into: list[memoryview]


def plan_reads(spans: Sequence[Span], *, piece: int = PIECE, gap: int = GAP) -> list[VectoredRead]:
    """Return the calls that fill the spans, sorted by offset: none of more than `piece` bytes, none that reads a gap of
    more than `gap` bytes.

    >>> into = memoryview(bytearray(8))
    >>> [(call.offset, call.nbytes) for call in plan_reads([Span(100, into[:4]), Span(90, into[4:])])]
    [(90, 14)]
    """
    scratch = memoryview(bytearray(gap))
    calls: list[VectoredRead] = []
    start = end = 0
    buffers: list[memoryview] = []

    def flush() -> None:
        nonlocal buffers
        if buffers:
            calls.append(VectoredRead(start, end - start, buffers))
            buffers = []

    for offset, into in sorted(spans, key=itemgetter(0)):
        between = offset - end
        nbytes = len(into)
        near = 0 <= between <= gap and end + between + nbytes - start <= piece
        if not (buffers and near and len(buffers) + 2 <= MOST_BUFFERS):
            flush()
            start = end = offset
            between = 0
        if nbytes > piece:
            calls.extend(_cut(offset, into, piece))
            start = end = offset + nbytes
            continue
        if between:
            buffers.append(scratch[:between])
        buffers.append(into)
        end += between + nbytes
    flush()
    return calls


def _cut(offset: int, into: memoryview, piece: int) -> list[VectoredRead]:
    pieces = [(start, into[start : start + piece]) for start in range(0, len(into), piece)]
    return [VectoredRead(offset + start, len(part), [part]) for start, part in pieces]


Job = TypeVar("Job")

# Four streams saturate one disk or memory bus; more threads only compete for the GIL.
THREADS = min(4, processors())

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
