"""Train on several ranks.

`python -m tests.integrations.ranks DIRECTORY NAME:KIND[:STEP] …`: each is a training of two ranks in DIRECTORY/NAME that
resumes what is there. KIND: `ddp`, `fsdp`, or `stalls` (DDP, see Stalls). With a STEP it ends after this step; with a STEP
and `!`, SIGKILL ends rank 1 in the save of this step, or right after it. What each rank ends with is printed as JSON, a
line for each training that is not killed. Exit code 1 where a rank failed.
"""

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
from tests.integrations.trainings import Points, network
from tests.ranks import on_ranks
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from statedict import CheckpointManager, last
from statedict.integrations import ResumableLoader

SIZE = 2


class Stalls(ResumableLoader):
    """A loader whose first load fails on rank 1, as a read from a network can: that rank tries again alone."""

    __slots__ = ()
    left = 1

    def load_state_dict(self, state):
        if dist.get_rank() == 1 and Stalls.left:
            Stalls.left -= 1
            raise OSError("stale handle")
        super().load_state_dict(state)


def train(kind, directory, end, kill_at):
    """A loop as on the page about integrations. Each rank has its own order, augmentation and dropout."""
    torch.manual_seed(3)
    model = network()
    if kind == "fsdp":
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (SIZE,)))
    else:
        model = torch.nn.parallel.DistributedDataParallel(model)
    torch.manual_seed(dist.get_rank())
    random.seed(dist.get_rank())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sampler = DistributedSampler(range(24), shuffle=True)
    loader, seen = (Stalls if kind == "stalls" else ResumableLoader)(DataLoader(Points(), 2, sampler=sampler)), []
    with CheckpointManager(directory, keep=last(2), timeout=timedelta(seconds=15)) as manager:
        resumed = manager.resume(model=model, optimizer=optimizer, loader=loader)
        step, epoch = (resumed.step, resumed.values["epoch"]) if resumed else (0, 0)
        took = 0.05
        for number in range(epoch, 3):
            sampler.set_epoch(number)
            for batch in loader:
                (model(batch) - batch).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                seen.append(batch.tolist())
                step += 1
                if step % 4 == 0:
                    killed = step == kill_at and dist.get_rank() == 1
                    if killed:
                        delay = random.SystemRandom().uniform(0, took)
                        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
                        timer.start()
                    began = time.perf_counter()
                    manager.save(step, epoch=number, model=model, optimizer=optimizer, loader=loader)
                    took = time.perf_counter() - began
                    if killed:  # the save was faster than the one before
                        timer.join()
                if step == end:
                    return None
    tensors = [*model.parameters(), *(each["exp_avg_sq"] for each in optimizer.state.values())]
    return {"tensors": [whole(each).tolist() for each in tensors], "random": torch.rand(2).tolist(), "seen": seen[-6:]}


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def run(kind, directory, end=None, kill_at=None):
    """One training; return what each rank ends with, or None if rank 1 was killed as it should be."""
    ranks = on_ranks(SIZE, lambda rank: train(kind, directory, end, kill_at), losses=kill_at is not None)
    if kill_at and ranks[1].code == -signal.SIGKILL:
        return None
    if any(rank.code for rank in ranks):
        raise RuntimeError(f"the ranks ended with {ranks}")
    return [rank.answer for rank in ranks]


def main(directory, *trainings):
    # The first save and resume import what every rank would import again.
    with tempfile.TemporaryDirectory() as first, CheckpointManager(first) as manager:
        loader = ResumableLoader([1])
        manager.save(0, loader=loader)
        manager.resume(loader=loader)
    for training in trainings:
        name, kind, *at = training.split(":")
        limit = {"kill_at" if at[0].endswith("!") else "end": int(at[0].rstrip("!"))} if at else {}
        ends = run(kind, Path(directory, name), **limit)
        if ends is not None:
            print(json.dumps(ends), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
