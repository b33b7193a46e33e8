"""The clocks that saving and its policies read. Tests replace them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The time of day, which a manifest records."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go backwards, for the time since the last save."""
    return time.monotonic()
