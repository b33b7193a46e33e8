"""Trains on several gloo ranks: forked from a process that has imported everything, so that a rank costs no import.

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
import traceback
from datetime import timedelta
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1"}

import torch
import torch._dynamo  # every optimizer imports it when it is made: seconds, for each rank
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
from tests.integrations.trainings import Points, network
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


def rank_of(number, kind, directory, end, kill_at, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=number, world_size=SIZE)
    (folder / str(number)).write_text(json.dumps(train(kind, directory, end, kill_at)))
    dist.barrier()
    dist.destroy_process_group()


def run(kind, directory, end=None, kill_at=None):
    """One training; return what each rank ends with, or None if rank 1 was killed as it should be."""
    with tempfile.TemporaryDirectory() as name:
        folder, children = Path(name), []
        for number in range(SIZE):
            child = os.fork()
            if not child:
                try:
                    rank_of(number, kind, directory, end, kill_at, folder)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        if kill_at and statuses[1] == signal.SIGKILL:
            return None
        if any(statuses):
            raise RuntimeError(f"the ranks ended with {statuses}")
        return [json.loads((folder / str(number)).read_text()) for number in range(SIZE)]


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
