"""The checkpoints of a training run: saved atomically, kept by policy, resumed from the newest valid one."""

from ._keep import Keep, Saved, all_steps, any_of, best, every, expired, last, reasons
from ._manager import CheckpointManager
from .resuming._find import PassedOver, Resumed

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
