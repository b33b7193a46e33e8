"""What the system refuses once it may grant the next time: a few tries, a short wait between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

# Seconds before the second and the third try: a stale handle or a full table of open files is often gone by then.
PAUSES = (0.05, 0.2)


def patiently(act: Callable[[], Result]) -> Result:
    """What `act` returns; where the system fails (OSError, MemoryError) it is tried again, three times in all."""
    for pause in PAUSES:
        try:
            return act()
        except (OSError, MemoryError):
            time.sleep(pause)
    return act()
