"""Connections of the ranks that save together, apart from those of the training, and which ranks are lost.

The connections are a gloo group on the CPU, whatever backend the training uses. So messages from a background thread never
mix with the training's collectives, and a process that has ended is noticed at once: its connections are closed.

A process that hangs is found by the time limit. The first rank finds it, and tells the others, which wait longer for the
first rank than that takes (`_vote.py`). After that nothing can be saved: later votes fail at once, with the same error.

Before there are connections, a process that has ended cannot be told from one that hangs, and gloo does not say for whom it
has waited. So the ranks meet in the job's store before they connect, and after it (`_connect.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from statedict.errors import RankError, SaveError

from ._connect import connected
from ._mail import Mail
from ._vote import Decide, all_ranks, vote

SHUT_DOWN = (
    "torch.distributed was shut down before this save had ended: wait for it with the manager's wait() or close() before "
    "destroy_process_group()"
)


class RankConnections:
    """Connections between all ranks of the job. Every rank creates it, and calls its methods, at the same time.

    `timeout`: how long the first rank waits for another one, and each for the job's store; the others wait for the first
    rank up to three times as long. If a rank is lost while they connect, `agree` raises the error.

    Attributes:
        rank: of this process. It stays valid after torch.distributed is shut down.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._world = _world()
        self._members = all_ranks()
        self.rank = dist.get_rank() if self._world is not None else 0
        self._group: Any = None
        self._lost: Mapping[int, str] = {}
        if self._world is not None:
            self._group, self._lost = connected(self._world, timeout)
        self._mail = Mail(self._group, timeout)

    @property
    def is_current(self) -> bool:
        """Whether torch.distributed has neither been initialised nor shut down since this was created."""
        return _world() is self._world

    def agree(self, error: BaseException | None, payload: Any = None, decide: Decide | None = None) -> list[Any]:
        """Vote: see `vote`. Raises RankError, naming the rank, if a rank is lost; SaveError if the job was shut down."""
        if self._lost:
            raise error or RankError(self._lost)
        try:
            return vote(error, payload, self._members, mail=self._mail, decide=decide)
        except (RankError, ValueError) as failed:
            if failed is not error and not self.is_current:
                raise SaveError(SHUT_DOWN) from failed
            if isinstance(failed, RankError):
                self._lost = {rank: text for rank, text in failed.failed.items() if self._mail.is_loss(text)}
            raise

    def close(self) -> None:
        """Close the connections."""
        if self._group is not None and self.is_current:
            dist.destroy_process_group(self._group)


def _world() -> dist.ProcessGroup | None:
    return dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
