"""Simulates schedules of processes that use one run, with crashes, and tells which of them break a promise.

    python -m tests.training.simulation --schedules 100000
    python -m tests.training.simulation --schedules 100000 --jobs 2
    python -m tests.training.simulation --world store --schedules 100000 a run in an object store, not on a disk
    python -m tests.training.simulation --seed 1679                      every call of one schedule, in words
    python -m tests.training.simulation --mutation manifest_first        with a mistake in the protocol, which must be found

Exit code 1 if a promise was broken (with `--mutation`: if none was).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext

from .explore import Outcome, explore, explore_many
from .mutations import MUTATIONS, mutated
from .world import WORLDS


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.training.simulation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--schedules", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first one")
    parser.add_argument("--seed", type=int, help="only this one, and everything that happens in it")
    parser.add_argument("--world", choices=WORLDS, default="disk", help="where the run is")
    parser.add_argument(
        "--mutation", choices=sorted({*MUTATIONS["disk"], *MUTATIONS["store"]}), help="a mistake to make"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many processes simulate")
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    if asked.seed is not None:
        with mutated(asked.mutation, asked.world) if asked.mutation else nullcontext():
            outcomes: Iterable[Outcome] = list(explore([asked.seed], asked.world, log=True))
    else:
        outcomes = explore_many(
            range(asked.first, asked.first + asked.schedules), asked.mutation, asked.world, asked.jobs
        )
    count = calls = kills = cuts = broken = 0
    for outcome in outcomes:
        count, calls = count + 1, calls + outcome.calls
        kills, cuts = kills + outcome.kills, cuts + outcome.cuts
        if outcome.log:
            print("\n".join(outcome.log))
        if outcome.failure:
            broken += 1
            print(f"seed {outcome.seed}: {outcome.failure}", flush=True)
            if asked.mutation:
                break
    seconds = time.perf_counter() - began
    print(f"{count:,} schedules, {calls:,} calls, {kills:,} killed processes, {cuts:,} power cuts: {broken} broken")
    print(f"{seconds:.0f} s, {seconds / count * 1e3:.1f} ms each")
    return int(bool(broken) != bool(asked.mutation))


if __name__ == "__main__":
    sys.exit(main())
