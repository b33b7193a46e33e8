"""Messages between ranks, with a time limit, and without two faults of gloo.

Gloo's own time limit is of no use: when it passes, gloo closes all connections of the rank that has waited. And when a
process ends, gloo tells those who wait for a message from it to begin, but not those who are in the middle of one, to or
from it, and they would wait for the time limit. But gloo refuses to begin another message then. So each message is sent or
received in a thread, and who waits for it begins another one every second.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from math import inf
from time import monotonic
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ._within import LOOK, awaited, started

T = TypeVar("T")
# Longer than any message takes, instead of gloo's time limit.
FOREVER = timedelta(days=365)
# The tag of a message that is never sent.
NEVER = 0x57A7ED1C
ENDED = "its process has ended, or its connection was lost"


def late(limit: timedelta) -> str:
    """The reason why a rank is lost that the others have waited for."""
    return f"it has not answered within {limit.total_seconds():g} s"


class Mail:
    """Messages between ranks, over one process group (None: the default one).

    `limit`: how long this rank waits for another one; None: as long as the process group does.

    Attributes:
        lost: the ranks whose process has ended, or whose message did not come in time, each with the reason.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, limit: timedelta | None = None) -> None:
        self.lost: dict[int, str] = {}
        self._group = group
        self._seconds = inf if limit is None else limit.total_seconds()
        self._late = ENDED if limit is None else late(limit)

    def until(self, limits: float) -> float:
        """The time of `monotonic` when so many time limits have passed."""
        return monotonic() + limits * self._seconds

    def send(self, rank: int, message: Any, until: float) -> bool:
        """Send a message; return whether the other process has received it."""
        return self.has_sent(rank, self.start(rank, message), until)

    def start(self, rank: int, message: Any) -> Future[None]:
        """Begin to send a message."""
        return self._started(partial(self._send, rank, message))

    def has_sent(self, rank: int, sending: Future[None], until: float) -> bool:
        """Wait for the end of `start`, unless the rank is lost; return whether the message was received."""
        return rank not in self.lost and self._succeeds(rank, sending, until)

    def receive(self, rank: int, until: float) -> Any:
        """Return the next message of a rank; None if it is lost."""
        if rank not in self.lost:
            receiving = self._started(partial(self._receive, rank))
            if self._succeeds(rank, receiving, until):
                return receiving.result()
            # Otherwise a message that arrives late would be taken for the answer to a later question.
            self.lost.setdefault(rank, self._late)
        return None

    def reason(self, rank: int) -> str:
        """Return why a rank is lost. Call it only for a rank whose message did not come."""
        return self.lost.get(rank, self._late)

    def is_loss(self, error: str | None) -> bool:
        """Whether the error on a ballot says that the rank is lost."""
        return error in (ENDED, self._late)

    def _started(self, act: Callable[[], T]) -> Future[T]:
        # NCCL works with the current device and stream, which each thread has of its own.
        return started(act, in_thread="cpu:gloo" in dist.get_backend_config(self._group))

    @property
    def _device(self) -> torch.device:
        has_cpu = "cpu:" in dist.get_backend_config(self._group)
        return (None if has_cpu else torch.accelerator.current_accelerator()) or torch.device("cpu")

    def _send(self, rank: int, message: Any) -> None:
        data = torch.frombuffer(bytearray(pickle.dumps(message)), dtype=torch.uint8)
        for tensor in (torch.tensor([data.numel()]), data):
            self._end(dist.isend(tensor.to(self._device), rank, self._group))

    def _receive(self, rank: int) -> Any:
        size = torch.zeros(1, dtype=torch.int64, device=self._device)
        self._end(dist.irecv(size, rank, self._group))
        data = torch.empty(int(size), dtype=torch.uint8, device=self._device)
        self._end(dist.irecv(data, rank, self._group))
        return pickle.loads(data.cpu().numpy().data)  # noqa: S301  # it comes from a rank of the same job

    def _end(self, transfer: dist.Work | None) -> None:
        assert transfer is not None, "this rank is part of the group"
        transfer.wait() if self._seconds == inf else transfer.wait(FOREVER)

    def _succeeds(self, rank: int, transfer: Future[Any], until: float) -> bool:
        """Wait for a message, for a second even if the time is over: one that is there is taken."""
        try:
            awaited(transfer, max(until, monotonic() + LOOK), partial(self._require_connection, rank))
        except TimeoutError:
            return False
        except RuntimeError:
            self.lost.setdefault(rank, ENDED)
            return False
        return True

    def _require_connection(self, rank: int) -> None:
        """Raise RuntimeError if gloo has closed the connection to a rank."""
        dist.irecv(torch.empty(1, dtype=torch.uint8), rank, self._group, tag=NEVER)
