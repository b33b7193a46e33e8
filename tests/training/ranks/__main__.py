"""Run phases of a training job, one after the other: functions of this package.

`python -m tests.training.ranks DIRECTORY PHASE:KIND:RANKS …`: what each rank returns is printed as JSON, a line for each
phase; null for a rank that was killed. Exit code 1 if a rank failed.
"""

import json
import signal
import sys
from functools import partial

from tests.ranks import on_ranks
from tests.training.objects import Counter
from tests.training.ranks import around, background, reusing, saving

from statedict import CheckpointManager

# In these, a rank is killed, the job shut down or its store damaged.
LOSSES = {"dies", "leaves", "silent"}


def phase_of(name):
    return next(getattr(module, name) for module in (saving, around, background, reusing) if hasattr(module, name))


def main(directory, *phases):
    # The first save and resume import what every rank would import again.
    with CheckpointManager(f"{directory}-first") as manager:
        manager.save(0, counter=Counter())
        manager.resume(counter=Counter())
    for asked in phases:
        phase, kind, size = asked.split(":")
        act = partial(phase_of(phase), kind, int(size), directory)
        if phase == "part":
            answers = [act()]
        else:
            ranks = on_ranks(int(size), lambda rank: act(), losses=phase in LOSSES)  # noqa: B023
            if any(rank.code not in (0, -signal.SIGKILL) for rank in ranks):
                return 1
            answers = [rank.answer for rank in ranks]
        print(json.dumps(answers), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
