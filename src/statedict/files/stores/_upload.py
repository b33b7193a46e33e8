"""A file object whose content is uploaded while it is written, by a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Self

from ._bucket import Bucket

# Bytes and chunks of a block, which is handed over at a time, and how many blocks may wait. Chunks of fewer than SMALL bytes
# are joined before they are sent.
BLOCK, MOST = 1 << 20, 1024
WAITING = 8
SMALL = 64 << 10

Chunk = bytes | memoryview


class _AbandonedError(Exception):
    """Raised in the thread of an upload that its writer gave up."""


class Upload:
    """A binary file object for writing one object of a bucket: a context manager in which it is written.

    Nothing is visible in the store before the context ends without an error, which raises that of the upload, if any.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._nbytes = 0
        self._bucket, self._key = bucket, key
        self._block: list[Chunk] = []
        self._room = BLOCK
        self._blocks: SimpleQueue[list[Chunk] | None] = SimpleQueue()
        self._free = threading.Semaphore(WAITING)
        self._error: BaseException | None = None
        self._abandoned = self._ended = False
        self._thread = threading.Thread(target=self._send, name="statedict-upload", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def write(self, data: Any) -> int:
        """Take all bytes of a buffer, and return how many these are. Raises the error of the upload if it has failed."""
        view = memoryview(data).cast("B")
        self.take(bytes(view[start : start + BLOCK]) for start in range(0, len(view), BLOCK))
        return len(view)

    def take(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks that are not modified later, without copying them."""
        for chunk in chunks:
            self._nbytes += len(chunk)
            for at in range(0, len(chunk), BLOCK):
                self._block.append(chunk[at : at + BLOCK])
                self._room -= len(self._block[-1])
                if self._room <= 0 or len(self._block) == MOST:
                    self._hand_over()

    def tell(self) -> int:
        return self._nbytes

    def flush(self) -> None:
        """Do nothing: what was written is uploaded in parts."""

    def close(self) -> None:
        """Do nothing: the object is complete when the context ends."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._abandoned = error is not None
        if self._block and not self._abandoned:
            self._blocks.put(self._block)
        self._blocks.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        self._free.acquire()
        if self._ended:
            raise self._error or RuntimeError(f"{self._bucket.url}/{self._key}: the upload has ended")
        self._blocks.put(self._block)
        self._block, self._room = [], BLOCK

    def _send(self) -> None:
        try:
            self._bucket.upload(self._key, self._taken())
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001  # raised in the thread that writes
            self._error = error
        finally:
            self._ended = True
            self._free.release(WAITING)

    def _taken(self) -> Iterator[Chunk]:
        while (block := self._blocks.get()) is not None:
            if self._abandoned:
                break
            self._free.release()
            for is_small, run in groupby(block, lambda chunk: len(chunk) < SMALL):
                if is_small:
                    yield b"".join(run)
                else:
                    yield from run
        if self._abandoned:
            raise _AbandonedError
