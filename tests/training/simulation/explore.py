"""Run the schedules of many seeds, and tell what came of each."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from statedict.training.saving import _frozen

from .calls import CALLS
from .client import simulated_store
from .mutations import mutated
from .threads import simulated_threads
from .world import WORLDS

# Schedules between two collections of garbage, which are otherwise a third of the time.
COLLECT = 200
# Schedules that a process simulates before it reports.
SLICE = 200


class Outcome(NamedTuple):
    """What came of a schedule. `failure`: the promise that was broken, or the error that nothing justified."""

    seed: int
    failure: str | None
    calls: int
    kills: int
    cuts: int
    log: list[str]


def explore(seeds: Iterable[int], world: str = "disk", *, log: bool = False) -> Iterator[Outcome]:
    """Run the schedule of each seed in a world. `log`: record every call, in words."""
    with _small_shards(), CALLS.installed(), simulated_store(), simulated_threads(), _few_collections():
        for number, seed in enumerate(seeds):
            lines: list[str] = []
            schedule = WORLDS[world](seed, lines if log else None)
            failure = None
            try:
                schedule.run()
            except Exception as error:  # an error that nothing justifies is as bad as a broken promise
                failure = f"{type(error).__name__}: {error}"
            computer = schedule.computer
            yield Outcome(seed, failure, computer.calls, computer.kills, computer.cuts, lines)
            if number % COLLECT == COLLECT - 1:
                gc.collect()


def explore_many(seeds: range, mutation: str | None = None, world: str = "disk", jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes of seeds in a world, in any order, from `jobs` processes.

    With a mistake, those of each slice until it is found.
    """
    slices = [(seeds[start : start + SLICE], mutation, world) for start in range(0, len(seeds), SLICE)]
    if jobs == 1:
        for one in slices:
            yield from _slice(one)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for outcomes in pool.imap_unordered(_slice, slices):
            yield from outcomes


def _slice(asked: tuple[range, str | None, str]) -> list[Outcome]:
    seeds, mutation, world = asked
    outcomes: list[Outcome] = []
    with mutated(mutation, world) if mutation else nullcontext():
        for outcome in explore(seeds, world):
            outcomes.append(outcome)
            if outcome.failure and mutation:
                break
    return outcomes


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
