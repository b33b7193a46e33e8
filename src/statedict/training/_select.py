"""The checkpoints that each retention policy of `_keep.py` selects: pure functions of what a run has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from heapq import nlargest, nsmallest
from itertools import accumulate
from math import isnan
from typing import TYPE_CHECKING, Any

from statedict.formats import byte_count

if TYPE_CHECKING:
    from ._keep import Keep, Saved


def last(saved: Sequence[Saved], n: int) -> set[int]:
    return set(nlargest(n, (s.step for s in saved)))


def every(saved: Sequence[Saved], steps: int = 0, **time: float) -> set[int]:
    if steps:
        return {s.step for s in saved if s.step % steps == 0}
    kept: list[Saved] = []
    for one in sorted(saved, key=lambda s: (s.time, s.step)):
        if not kept or one.time - kept[-1].time >= timedelta(**time):
            kept.append(one)
    return {s.step for s in kept}


def within(saved: Sequence[Saved], **time: float) -> set[int]:
    newest = max((s.time for s in saved), default=datetime.min)
    return {s.step for s in saved if newest - s.time <= timedelta(**time)}


def at_most(saved: Sequence[Saved], size: int | str, keep: Keep | None = None) -> set[int]:
    largest = byte_count(size)
    asked = (keep or all_steps)(saved) | last(saved, 1)
    order = sorted((s for s in saved if s.pinned or s.step in asked), key=lambda s: (s.pinned, s.step), reverse=True)
    return {s.step for s, total in zip(order, accumulate(s.nbytes for s in order)) if total <= largest}


def best(saved: Sequence[Saved], metric: str, n: int, mode: str) -> set[int]:
    pick = {"min": nsmallest, "max": nlargest}[mode]
    newer = {"min": -1, "max": 1}[mode]
    return {s.step for s in pick(n, ranked(saved, metric), key=lambda s: (s.metrics[metric], newer * s.step))}


def all_steps(saved: Sequence[Saved]) -> set[int]:
    return {s.step for s in saved}


def any_of(saved: Sequence[Saved], *policies: Keep) -> set[int]:
    return set().union(*(keep(saved) for keep in policies))


def ranked(saved: Sequence[Saved], metric: str) -> list[Saved]:
    """The checkpoints in which `metric` is a number."""
    return [s for s in saved if _is_number(s.metrics.get(metric))]


def _is_number(value: Any) -> bool:
    # `isnan` raises OverflowError for a large integer.
    return isinstance(value, int) or (isinstance(value, float) and not isnan(value))
