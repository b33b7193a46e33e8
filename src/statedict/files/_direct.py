"""Write a large file past the page cache, for durable saves.

Through the page cache, a durable save copies its bytes into pages that the system must find first, and then waits until the
disk has them. Here the bytes are collected in a few buffers, and threads write one (O_DIRECT) while others are filled, so
the disk always has several requests (docs/performance.md, "Saving large tensors").
"""

from __future__ import annotations

import errno
import mmap
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

# Offsets, lengths and addresses must be multiples of the disk's block size, which is at most this; and a page in the cache
# must not contain bytes that are written past it.
ALIGNMENT = max(4096, mmap.PAGESIZE)
# Fewer bytes than this are written through the page cache.
SHORTEST = 256 << 10
BUFFER, BUFFERS, THREADS = 2 << 20, 4, 2

# Write a buffer at an offset: past the page cache, which may write less; through it, completely.
Direct = Callable[[Sequence[memoryview], int], int]
Cached = Callable[[int, Sequence[memoryview]], None]


class DirectWriter:
    """Takes the bytes of a file, in any order but each only once, and writes aligned runs of them in threads."""

    def __init__(self, direct: Direct, cached: Cached) -> None:
        self._direct, self._cached = direct, cached
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._full: SimpleQueue[tuple[memoryview, slice, int] | None] = SimpleQueue()
        for _ in range(BUFFERS):
            self._free.put(memoryview(mmap.mmap(-1, BUFFER)))
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        # What is being collected: `_buffer[_start:_stop]`. The buffer belongs at `_offset`, a multiple of ALIGNMENT.
        self._buffer: memoryview | None = None
        self._offset = self._start = self._stop = 0

    def write(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Take a copy of the buffers, which follow each other at `offset`. Raises the error of an earlier write."""
        for data in buffers:
            done = 0
            while done < len(data):
                buffer = self._buffer
                if buffer is None or offset != self._offset + self._stop:
                    buffer = self._begin(offset)
                piece = data[done : done + BUFFER - self._stop]
                buffer[self._stop : self._stop + len(piece)] = piece
                self._stop += len(piece)
                offset += len(piece)
                done += len(piece)
                if self._stop == BUFFER:
                    self._hand_over()

    def finish(self) -> None:
        """Write what is left, and wait until everything is written."""
        self._hand_over()
        self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Wait until the threads have ended; what has not been handed over to them is dropped."""
        self._full.put(None)
        # They stay in the list: if waiting is interrupted, the next call waits for them before the file is closed.
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _begin(self, offset: int) -> memoryview:
        """Collect the bytes from `offset` on; return the buffer for them."""
        self._hand_over()
        buffer = self._buffer = self._free.get()
        if self._error is not None:
            raise self._error
        self._start = self._stop = offset % ALIGNMENT
        self._offset = offset - self._start
        return buffer

    def _hand_over(self) -> None:
        """Let a thread write the blocks that are complete, and write the bytes before and after them."""
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return
        first, last = -(-self._start // ALIGNMENT) * ALIGNMENT, self._stop // ALIGNMENT * ALIGNMENT
        if last - first < SHORTEST:
            first = last = self._stop
        for start, stop in ((self._start, first), (last, self._stop)):
            if start < stop:
                self._cached(self._offset + start, [buffer[start:stop]])
        if first == last:
            self._free.put(buffer)
            return
        if self._has_threads():
            self._full.put((buffer, slice(first, last), self._offset + first))
        else:
            self._take(buffer, slice(first, last), self._offset + first)

    def _has_threads(self) -> bool:
        """Start a thread, unless there are enough; return whether there is one."""
        if len(self._threads) < THREADS:
            self._threads.append(threading.Thread(target=self._run, name="statedict-write", daemon=True))
            try:
                self._threads[-1].start()
            except RuntimeError:
                self._threads.pop()  # the system refuses more threads
        return bool(self._threads)

    def _run(self) -> None:
        while (taken := self._full.get()) is not None:
            self._take(*taken)
        self._full.put(None)  # for the other thread

    def _take(self, buffer: memoryview, blocks: slice, offset: int) -> None:
        """Write these blocks of a buffer, which is then free; `write` and `finish` raise an error of it."""
        try:
            if self._error is None:
                self._write(buffer[blocks], offset)
        except BaseException as error:  # noqa: BLE001  # raised in the thread that saves
            self._error = error
        self._free.put(buffer)

    def _write(self, data: memoryview, offset: int) -> None:
        try:
            done = self._direct([data], offset)
        except OSError as error:
            # The file system wants another alignment, or does not write past the cache at all.
            if error.errno != errno.EINVAL:
                raise
            done = 0
        if done < len(data):
            self._cached(offset + done, [data[done:]])
