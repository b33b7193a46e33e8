"""Runs functions on several ranks: forked from a process that has imported everything, so that a rank costs no import.

`python -m tests.training.ranks DIRECTORY PHASE:KIND:RANKS …`: the phases are functions of this package, and each ends before
the next begins. What each rank answers is printed as JSON, a line for each phase; None for a rank that was killed. Exit code
1 where a rank failed.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch.distributed as dist
from tests.training.objects import Counter
from tests.training.ranks import around, background, reusing, saving

from statedict import CheckpointManager

# In these, a rank is killed, the job shut down or its store damaged, so the ranks do not meet at the end.
LOSSES = {"dies", "leaves", "silent"}


def phase_of(name):
    return next(getattr(module, name) for module in (saving, around, background, reusing) if hasattr(module, name))


def rank_of(number, size, phase, kind, directory, folder):
    if phase == "part":
        (folder / str(number)).write_text(json.dumps(saving.part(kind, size, directory)))
        return
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=size)
    told = phase_of(phase)(kind, size, directory)
    (folder / str(number)).write_text(json.dumps(told))
    if phase not in LOSSES:
        dist.barrier()
        dist.destroy_process_group()


def main(directory, *phases):
    # The first save and resume import what every rank would import again.
    with CheckpointManager(f"{directory}-first") as manager:
        manager.save(0, counter=Counter())
        manager.resume(counter=Counter())
    for count, asked in enumerate(phases):
        phase, kind, size = asked.split(":")
        folder = Path(f"{directory}-{count}")
        folder.mkdir()
        children = []
        for number in range(int(size)):
            child = os.fork()
            if not child:
                try:
                    rank_of(number, int(size), phase, kind, directory, folder)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if any(status not in (0, signal.SIGKILL) for status in statuses):
            return 1
        answers = [folder / str(number) for number in range(int(size))]
        print(json.dumps([json.loads(one.read_text()) if one.exists() else None for one in answers]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
