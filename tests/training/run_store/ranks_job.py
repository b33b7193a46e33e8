"""One rank of a job that trains and saves: `python ranks_job.py RUN RENDEZVOUS RANK RANKS`."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from statedict import CheckpointManager, last


def main(run, rendezvous, rank, ranks):
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(ranks))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (int(ranks),)))
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
    if int(rank) == 0:
        print(first, total.item())
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
