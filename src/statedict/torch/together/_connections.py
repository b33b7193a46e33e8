"""Connections of the ranks that save together, apart from those of the training, and which ranks are lost.

The connections are a gloo group on the CPU, whatever backend the training uses. So messages from a background thread never
mix with the training's collectives, and a process that has ended is noticed at once: its connections are closed.

A process that hangs is detected by the time limit, but a rank whose limit passes first has not necessarily waited for that
process: it may have waited for the first rank, which waits for the process in turn. Gloo then closes all connections of the
rank that has waited, so that the others would blame that rank. Therefore each rank counts its votes in the job's store. The
first rank whose limit passes finds out there who has not come to the vote, and records it; the others read the record before
they blame a rank. After that nothing can be saved: later votes fail at once, with the same error.

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

from ._connect import connected, late, silent_store, within
from ._vote import ENDED, Decide, Mail, all_ranks, vote

LOST, VOTES = "lost", "votes-of-{}"
# How long to wait for a record that another rank may be writing.
PATIENCE = timedelta(seconds=1)
SHUT_DOWN = (
    "torch.distributed was shut down before this save had ended: wait for it with the manager's wait() or close() before "
    "destroy_process_group()"
)


class RankConnections:
    """Connections between all ranks of the job. Every rank creates it, and calls its methods, at the same time.

    `timeout`: how long a rank waits for another one, and for the job's store. If a rank is lost while they connect, `agree`
    raises the error.

    Attributes:
        rank: of this process. It stays valid after torch.distributed is shut down.
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
        """Whether torch.distributed has neither been initialised nor shut down since this was created."""
        return _world() is self._world

    def agree(self, error: BaseException | None, payload: Any = None, decide: Decide | None = None) -> list[Any]:
        """Vote: see `vote`. Raises RankError, naming the rank, if a rank is lost; SaveError if the job was shut down."""
        if not self._lost:
            self._come()
        if self._lost:
            raise error or RankError(self._lost)
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
        """Count the vote that begins. If the store is gone, the vote itself fails."""
        if self._group is None:
            return
        try:
            self._votes = within(self._timeout, lambda: self._group.get_group_store().add(VOTES.format(self.rank), 1))
        except TimeoutError:
            self._lost = silent_store(self._timeout)
        except (RuntimeError, ValueError):
            pass

    def _blamed(self, gone: int) -> dict[int, str]:
        """Return the lost ranks, the same on all ranks: the first finding that is recorded counts. `gone`: by the vote."""
        rank, why = self._mail.failure or (gone, "")
        timed_out = "Timed out" in why
        own = {rank: late(self._timeout)} if timed_out else {gone: ENDED}
        # Without the store, whose process may be the one that has ended, only this rank's finding is known.
        with suppress(RuntimeError, TimeoutError):
            return within(self._timeout, lambda: self._recorded(own, timed_out=timed_out))
        return own

    def _recorded(self, own: dict[int, str], *, timed_out: bool) -> dict[int, str]:
        """Record this rank's finding, unless another rank has; return the one that is recorded."""
        store = self._group.get_group_store()
        if timed_out:
            absent = [each for each in self._members if store.add(VOTES.format(each), 0) < self._votes]
            own = dict.fromkeys(absent, late(self._timeout)) or own
        else:
            with suppress(RuntimeError):
                store.wait([LOST], PATIENCE)
        return dict(json.loads(store.compare_set(LOST, "", json.dumps([*own.items()])).decode()))


def _world() -> dist.ProcessGroup | None:
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
