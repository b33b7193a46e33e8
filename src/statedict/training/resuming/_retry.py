"""Retries of system calls that can fail temporarily."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# Seconds before the second and the third attempt. A stale NFS handle or a full file table has often recovered by then.
PAUSES = (0.05, 0.2)


def retried(act: Callable[[], Result]) -> Result:
    """Return `act()`; on OSError or MemoryError try again, three times in total."""
    for pause in PAUSES:
        try:
            return act()
        except (OSError, MemoryError):
            time.sleep(pause)
    return act()
