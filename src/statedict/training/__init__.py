"""The checkpoints of a training run: saved atomically, kept by policy, resumed from the newest valid one."""

from ._keep import Keep, Saved, all_steps, any_of, at_most, best, every, expired, last, reasons, within
from ._manager import CheckpointManager
from ._random import read as read_random
from ._random import write as write_random
from ._ranks import ranks
from ._when import When, on_preemption
from .resuming._find import PassedOver, Resumed

__all__ = [
    "CheckpointManager",
    "Keep",
    "PassedOver",
    "Resumed",
    "Saved",
    "When",
    "all_steps",
    "any_of",
    "at_most",
    "best",
    "every",
    "expired",
    "last",
    "on_preemption",
    "ranks",
    "read_random",
    "reasons",
    "within",
    "write_random",
]
