"""The ranks that save together, apart from the training: a process group of their own, and which of them are lost.

The group is gloo's, on the CPU, whatever the training uses. So its messages, which a background thread sends, never mix with
the training's collectives, and a process that has ended is noticed at once: its connections are closed.

A process that hangs is noticed by the time limit. Who has waited longest need not have waited for that process, but for
the first rank, which waits for it in turn; and then gloo closes all connections of the process that has waited, so that the
others would blame that one. So each rank counts its votes in the job's store. The first rank whose time limit passes writes
down there who has not come to the vote, and the others look there before they blame anybody. Nothing can be saved with a
lost rank: later votes fail at once, with the same error.

Before there are connections, a process that has ended cannot be told from one that hangs, and gloo does not say for whom it
has waited. So the ranks meet in the store before they connect, and after it (`_connect.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from statedict.errors import RankError, SaveError

from ._connect import connected, late
from ._vote import ENDED, Decide, Mail, all_ranks, vote

LOST, VOTES = "lost", "votes-of-{}"
# How long to wait for what another rank may be writing down.
PATIENCE = timedelta(seconds=1)
SHUT_DOWN = (
    "torch.distributed was shut down before this save had ended: wait for it with the manager's wait() or close() before "
    "destroy_process_group()"
)


class RankConnections:
    """All ranks of the job, with connections of their own. Every rank makes it, and calls its methods, at the same time.

    `timeout`: how long a rank waits for another one. If one is lost while the connections are made, `agree` says so.

    Attributes:
        rank: this one. It does not change, whatever becomes of torch.distributed.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._world = _world()
        self._members = all_ranks()
        self.rank = dist.get_rank() if self._world is not None else 0
        self._timeout = timeout
        self._group: Any = None
        self._lost: Mapping[int, str] = {}
        self._votes = 0
        if self._world is not None:
            self._group, self._lost = connected(self._world, timeout)
        self._mail = Mail(self._group)

    @property
    def is_current(self) -> bool:
        """Whether torch.distributed was not initialised, or ended, since the group was made."""
        return _world() is self._world

    def agree(self, error: BaseException | None, payload: Any = None, decide: Decide | None = None) -> list[Any]:
        """Vote: see `vote`. Raises RankError, naming the rank, if a rank is lost; SaveError if the job was shut down."""
        if self._lost:
            raise error or RankError(self._lost)
        self._come()
        try:
            return vote(error, payload, self._members, mail=self._mail, decide=decide)
        except (RankError, ValueError) as failed:
            if failed is not error and not self.is_current:
                raise SaveError(SHUT_DOWN) from failed
            if not isinstance(failed, RankError) or ENDED not in failed.failed.values():
                raise
            known = {rank: text for rank, text in failed.failed.items() if text != ENDED}
            self._lost = self._blamed(next(rank for rank, text in failed.failed.items() if text == ENDED))
            raise RankError({**known, **self._lost}) from failed

    def close(self) -> None:
        """Close the connections."""
        if self._group is not None and self.is_current:
            dist.destroy_process_group(self._group)

    def _come(self) -> None:
        """Count the vote that begins. Without the store there is nobody to tell; then the vote itself fails."""
        with suppress(RuntimeError, ValueError):
            if self._group is not None:
                self._votes = self._group.get_group_store().add(VOTES.format(self.rank), 1)

    def _blamed(self, gone: int) -> dict[int, str]:
        """The lost ranks, as all ranks name them: the first to write them down is right. `gone`: as the vote says."""
        rank, why = self._mail.failure or (gone, "")
        timed_out = "Timed out" in why
        found = json.dumps([[rank, late(self._timeout)] if timed_out else [gone, ENDED]])
        # Without the store, whose process may be the one that has ended, this rank's own finding has to do.
        with suppress(RuntimeError):
            store = self._group.get_group_store()
            if timed_out:
                absent = [each for each in self._members if store.add(VOTES.format(each), 0) < self._votes]
                found = json.dumps([[each, late(self._timeout)] for each in absent or [rank]])
            else:
                with suppress(RuntimeError):
                    store.wait([LOST], PATIENCE)
            found = store.compare_set(LOST, "", found).decode()
        return dict(json.loads(found))


def _world() -> dist.ProcessGroup | None:
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
