"""A file object whose content is uploaded while it is written, by a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from .._checksum import crc32
from ._bucket import Bucket

# Bytes handed over at a time, and how many of these blocks may wait.
BLOCK = 2 << 20
WAITING = 4


class _AbandonedError(Exception):
    """Raised in the thread of an upload that its writer gave up."""


class Upload:
    """A binary file object for writing one object of a bucket: a context manager in which it is written.

    Nothing is visible in the store before the context ends without an error, which raises that of the upload, if any.

    Attributes:
        nbytes, crc32: of what has been written.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self.nbytes = self.crc32 = 0
        self._bucket, self._key = bucket, key
        self._block = bytearray()
        self._blocks: SimpleQueue[bytes | None] = SimpleQueue()
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
        self.crc32 = crc32(view, self.crc32)
        self.nbytes += len(view)
        for start in range(0, len(view), BLOCK):
            self._block += view[start : start + BLOCK]
            if len(self._block) >= BLOCK:
                self._hand_over()
        return len(view)

    def tell(self) -> int:
        return self.nbytes

    def flush(self) -> None:
        """Do nothing: what was written is uploaded in parts."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = error is not None
        if self._block and not self._abandoned:
            self._blocks.put(bytes(self._block))
        self._blocks.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        self._free.acquire()
        if self._ended:
            raise self._error or RuntimeError(f"{self._bucket.url}/{self._key}: the upload has ended")
        self._blocks.put(bytes(self._block))
        self._block.clear()

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

    def _taken(self) -> Iterator[bytes]:
        while (block := self._blocks.get()) is not None:
            if self._abandoned:
                break
            self._free.release()
            yield block
        if self._abandoned:
            raise _AbandonedError
