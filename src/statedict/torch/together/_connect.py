"""Connect all ranks by a process group of their own, and find out which of them are lost meanwhile.

Gloo waits until each rank has published its address in the job's store, and then connects. If a process ends before it has
done both, the others wait for the whole time limit, and some of them may have connected. So the ranks meet in the store
twice: when they arrive, before gloo waits, and when they have connected or failed to.

The store may not answer either, and PyTorch's own limits do not help: a TCPStore waits for a process that hangs, and a
FileStore reads forever at a record that a killed process has left incomplete. So every call of the store is made `within` a
time limit.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from time import monotonic
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from ._mail import ENDED, late
from ._within import within

# The maximum delay with which a rank reports that its time limit has passed, compared with the others.
SLACK = timedelta(seconds=5)


def connected(world: dist.ProcessGroup, timeout: timedelta) -> tuple[dist.ProcessGroup | None, dict[int, str]]:
    """Return the group (None if it could not be made), and the ranks that are lost, each with the reason.

    Every rank calls this at the same time; `timeout` is how long it waits for the others to arrive, and then to connect.
    """
    group = None
    try:
        meeting = _Meeting(world, timeout)
        lost = meeting.meet("arrived", "", timeout)
        if not lost:
            # `_made` takes at most `timeout + SLACK`.
            until = monotonic() + (timeout + 2 * SLACK).total_seconds()
            group, failed = _made(timeout)
            lost = meeting.meet("connected", failed, timedelta(seconds=until - monotonic()))
    except TimeoutError:
        lost = silent_store(timeout)
    except RuntimeError:
        # The store does not answer. It is in the process of rank 0 or of the launcher, and no rank can do without it.
        lost = {0: ENDED}
    return group, lost


def silent_store(timeout: timedelta) -> dict[int, str]:
    """The lost ranks if the job's store does not answer: rank 0, whose process usually has it."""
    reason = (
        f"the store of torch.distributed has not answered within {timeout.total_seconds():g} s (it is in the process of "
        "rank 0 or of the launcher; or it is a file, init_method='file://…', that a killed process has left incomplete)"
    )
    return {0: reason}


def _made(timeout: timedelta) -> tuple[dist.ProcessGroup | None, str]:
    """The group, or why this rank cannot make it."""
    try:
        # Gloo's own limit is for each step, so that a rank which connects to one that has ended can take longer.
        return within(timeout + SLACK, partial(dist.new_group, backend="gloo", timeout=timeout)), ""
    except (RuntimeError, TimeoutError) as error:
        return None, f"it cannot connect to the other ranks: {str(error) or late(timeout)}"


class _Meeting:
    """The keys of one group in the job's store."""

    def __init__(self, world: Any, timeout: timedelta) -> None:
        store = world.get_group_store()
        # Each rank counts its own groups, and all make the same ones.
        number = within(timeout, lambda: store.add(f"statedict/groups-of-{world.rank()}", 1))
        self._store = PrefixStore(f"statedict/{number}", store)
        self._rank, self._size = world.rank(), world.size()
        self._timeout = timeout

    def meet(self, stage: str, failed: str, wait: timedelta) -> dict[int, str]:
        """Wait for all ranks, and return the lost ones: those that do not come, or else those that have failed."""
        return within(wait + SLACK, lambda: self._meet(stage, failed, wait))

    def _meet(self, stage: str, failed: str, wait: timedelta) -> dict[int, str]:
        keys = [f"{stage}/{rank}" for rank in range(self._size)]
        self._store.set(keys[self._rank], failed)
        try:
            self._store.wait(keys, max(wait, timedelta(milliseconds=1)))
        except RuntimeError:
            return {rank: late(self._timeout) for rank, key in enumerate(keys) if not self._store.check([key])}
        reports = [self._store.get(key).decode() for key in keys]
        return {rank: text for rank, text in enumerate(reports) if text}
