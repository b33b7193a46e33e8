"""Run the schedules of many seeds, and tell what came of each."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from statedict.training.saving import _frozen

from .calls import CALLS
from .world import Schedule

# Schedules between two collections of garbage, which are otherwise a third of the time.
COLLECT = 200


class Outcome(NamedTuple):
    """What came of a schedule. `failure`: the promise that was broken, or the error that nothing justified."""

    seed: int
    failure: str | None
    calls: int
    kills: int
    cuts: int
    log: list[str]


def explore(seeds: Iterable[int], *, log: bool = False) -> Iterator[Outcome]:
    """Run the schedule of each seed. `log`: record every call, in words."""
    with _small_shards(), CALLS.installed(), _few_collections():
        for number, seed in enumerate(seeds):
            lines: list[str] = []
            schedule = Schedule(seed, lines if log else None)
            failure = None
            try:
                schedule.run()
            except Exception as error:  # noqa: BLE001  # an error that nothing justifies is as bad as a broken promise
                failure = f"{type(error).__name__}: {error}"
            computer = schedule.computer
            yield Outcome(seed, failure, computer.calls, computer.kills, computer.cuts, lines)
            if number % COLLECT == COLLECT - 1:
                gc.collect()


@contextmanager
def _small_shards() -> Iterator[None]:
    """Let frozen parameters be shared however small they are."""
    before, _frozen.WORTH_SHARING = _frozen.WORTH_SHARING, 1
    try:
        yield
    finally:
        _frozen.WORTH_SHARING = before


@contextmanager
def _few_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
