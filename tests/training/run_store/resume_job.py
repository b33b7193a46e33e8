"""Two ranks that save two steps, or resume: `python resume_job.py RUN WHAT`. Prints what each tells of it."""

import json
import sys

import torch
import torch.distributed as dist
from tests.ranks import answers
from torch.distributed.fsdp import fully_shard

from statedict import CheckpointManager
from statedict.errors import StateDictError


def job(value):
    """A sharded model of several megabytes whose weights have a value, and an optimizer with a state."""
    model = torch.nn.Sequential(torch.nn.Linear(800, 800, bias=False))
    torch.nn.init.constant_(model[0].weight, value)
    model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    model(torch.full((1, 800), value)).sum().backward()
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def moments(objects):
    return [value["exp_avg"].to_local().clone() for value in objects["optimizer"].state.values()]


def act(run, what):
    told = {}
    with CheckpointManager(run) as manager:
        if what == "save":
            for step in (1, 2):
                manager.save(step, **job(float(step)))
        else:
            objects = job(9.0)
            before = moments(objects)
            try:
                resumed = manager.resume(**objects)
                told = {"step": resumed.step, "passed": [each.step for each in resumed.passed_over]}
            except StateDictError as error:
                same = all(map(torch.equal, before, moments(objects)))
                told = {"error": str(error), "moments": same}
            weight = objects["model"][0].weight.to_local()
            told["value"] = weight.mean().item() if weight.min() == weight.max() else "mixed"
    return told


if __name__ == "__main__":
    print(json.dumps(answers(2, lambda rank: act(*sys.argv[1:]))))
