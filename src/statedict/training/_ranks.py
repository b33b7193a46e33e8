"""The number of processes that train together."""

from __future__ import annotations

import sys


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) if torch.distributed is not in use.

    >>> ranks()
    (0, 1)
    """
    if sys.modules.get("torch") is None:
        return 0, 1
    from statedict import torch as host

    return host.ranks()
