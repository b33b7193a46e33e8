"""How many processes train together."""

from __future__ import annotations

import sys


def world() -> tuple[int, int]:
    """Rank and number of processes; (0, 1) where torch.distributed is not in use."""
    if sys.modules.get("torch") is None:
        return 0, 1
    from statedict.torch import ranks

    return ranks()
