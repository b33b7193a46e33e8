"""Connect all ranks by a process group of their own, and find out who of them is lost meanwhile.

Gloo waits for each rank to publish its address in the job's store, and then connects. If a process ends before it has done
both, the others wait for as long as the time limit, and some of them may have connected. So the ranks meet twice in the
store: when they come, before gloo waits, and when they have connected, or failed to.
"""

from __future__ import annotations

from datetime import timedelta
from time import monotonic
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from ._vote import ENDED

# How much later than the others a rank may say that its time limit has passed.
SLACK = timedelta(seconds=5)


def connected(world: dist.ProcessGroup, timeout: timedelta) -> tuple[dist.ProcessGroup | None, dict[int, str]]:
    """Return the group (None if it could not be made), and the ranks that are lost, each with the reason.

    Every rank calls this at the same time; `timeout` is how long it waits for the others to come, and then to connect.
    """
    group = None
    try:
        meeting = _Meeting(world, timeout)
        lost = meeting.meet("came", "", timeout)
        if not lost:
            until = monotonic() + (timeout + SLACK).total_seconds()
            group, failed = _made(timeout)
            lost = meeting.meet("connected", failed, timedelta(seconds=until - monotonic()))
    except RuntimeError:
        # The store does not answer. It is in the process of rank 0, or in that of the launcher, without which none runs on.
        lost = {0: ENDED}
    return group, lost


def late(timeout: timedelta) -> str:
    """The reason for which a rank is lost that the others have waited for."""
    return f"it has not answered within {timeout.total_seconds():g} s"


def _made(timeout: timedelta) -> tuple[dist.ProcessGroup | None, str]:
    """The group, or why this rank cannot make it."""
    try:
        return dist.new_group(backend="gloo", timeout=timeout), ""
    except RuntimeError as error:
        return None, f"it cannot connect to the other ranks: {error}"


class _Meeting:
    """The keys of one group in the job's store."""

    def __init__(self, world: Any, timeout: timedelta) -> None:
        store = world.get_group_store()
        # Each rank counts its own groups, and all make the same ones.
        number = store.add(f"statedict/groups-of-{world.rank()}", 1)
        self._store = PrefixStore(f"statedict/{number}", store)
        self._rank, self._size = world.rank(), world.size()
        self._timeout = timeout

    def meet(self, stage: str, failed: str, wait: timedelta) -> dict[int, str]:
        """Wait for all ranks, and return the lost ones: those that do not come, or else those that have failed."""
        keys = [f"{stage}/{rank}" for rank in range(self._size)]
        self._store.set(keys[self._rank], failed)
        try:
            self._store.wait(keys, max(wait, timedelta(milliseconds=1)))
        except RuntimeError:
            return {rank: late(self._timeout) for rank, key in enumerate(keys) if not self._store.check([key])}
        said = [self._store.get(key).decode() for key in keys]
        return {rank: text for rank, text in enumerate(said) if text}
