"""A job that trains and saves: `python ranks_job.py RUN RANKS`. Prints the step that it began with, and the sum of all
parameters at the end.
"""

import sys

import torch
import torch.distributed as dist
from tests.ranks import answers
from torch.distributed.fsdp import fully_shard

from statedict import CheckpointManager, last


def train(run):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.Adam(model.parameters())
    with CheckpointManager(run, keep=last(2)) as manager:
        resumed = manager.resume(model=model, optimizer=optimizer)
        first = 1 if resumed is None else resumed.step + 1
        for step in range(first, first + 3):
            optimizer.zero_grad()
            model(torch.full((2, 8), float(step))).sum().backward()
            optimizer.step()
            manager.save(step, model=model, optimizer=optimizer)
    total = sum(parameter.full_tensor().double().sum() for parameter in model.parameters())
    return first, total.item()


if __name__ == "__main__":
    run, size = sys.argv[1:]
    print(*answers(int(size), lambda rank: train(run))[0])
