"""A run of checkpoints: saved atomically, kept by policy, resumed from the newest that verifies."""

from ._keep import Keep, Saved, all_steps, any_of, best, every, expired, last, reasons
from ._manager import CheckpointManager
from ._resume import PassedOver, Resumed

__all__ = [
    "CheckpointManager",
    "Keep",
    "PassedOver",
    "Resumed",
    "Saved",
    "all_steps",
    "any_of",
    "best",
    "every",
    "expired",
    "last",
    "reasons",
]
