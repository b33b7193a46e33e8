"""Which checkpoints of a run to keep: policies are values, pure functions of what is on disk.

    keep = any_of(last(3), every(10_000), best("val_loss", n=2))

A policy takes the checkpoints that exist and gives the steps to keep. Whatever it says, the newest is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest, nsmallest
from math import isnan
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Saved:
    """One complete checkpoint of a run.

    Attributes:
        step: the training step it was saved at.
        path: its directory.
        metrics: as given to `save`.
        time: when it was saved (UTC).
        nbytes: what its files hold, those shared with other checkpoints included.
    """

    step: int
    path: Path
    metrics: Mapping[str, Any]
    time: datetime
    nbytes: int


Keep = Callable[[Sequence[Saved]], set[int]]


def last(n: int) -> Keep:
    """Keep the newest `n`.

    Raises ValueError where `n` is below 1: a run keeps at least its newest checkpoint.
    """
    _at_least_one(n, "last(n)")
    return lambda saved: set(nlargest(n, (s.step for s in saved)))


def every(steps: int) -> Keep:
    """Keep those whose step is a multiple of `steps`."""
    _at_least_one(steps, "every(steps)")
    return lambda saved: {s.step for s in saved if s.step % steps == 0}


def best(metric: str, n: int = 1, mode: Literal["min", "max"] = "min") -> Keep:
    """Keep the `n` with the lowest (`mode="max"`: highest) value of `metric`; of equal ones, the newer.

    Checkpoints without the metric, or where it is NaN, are not among the best.
    """
    _at_least_one(n, "best(metric, n)")
    pick = {"min": nsmallest, "max": nlargest}[mode]
    newer = {"min": -1, "max": 1}[mode]
    return lambda saved: {
        s.step for s in pick(n, ranked(saved, metric), key=lambda s: (s.metrics[metric], newer * s.step))
    }


def all_steps() -> Keep:
    """Keep every checkpoint."""
    return lambda saved: {s.step for s in saved}


def any_of(*policies: Keep) -> Keep:
    """Keep what any of the policies keeps."""
    return lambda saved: set().union(*(policy(saved) for policy in policies))


def ranked(saved: Sequence[Saved], metric: str) -> list[Saved]:
    """Those that have a number for `metric`."""
    return [s for s in saved if isinstance(s.metrics.get(metric), (int, float)) and not isnan(s.metrics[metric])]


def expired(saved: Sequence[Saved], keep: Keep) -> list[Saved]:
    """What a policy lets go, oldest first. The newest is never among them."""
    kept = keep(saved) | last(1)(saved)
    return sorted((s for s in saved if s.step not in kept), key=lambda s: s.step)


def _at_least_one(n: int, what: str) -> None:
    if n < 1:
        raise ValueError(f"{what} needs a number of at least 1, not {n}")
