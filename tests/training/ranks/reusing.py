"""Phases in which asynchronous saves use the plan of an earlier one again."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from tests.training.ranks.trained import step, training
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict
from torch.distributed.tensor import Shard, distribute_tensor

from statedict import CheckpointManager, _sources, last
from statedict.torch import RankPart, rank_state
from statedict.training.saving import _frozen


def reuses(kind, size, directory):
    """What two managers save after each change: one that uses its plans again, and one that is new for each save."""
    _frozen.WORTH_SHARING = 1
    model, optimizer = training(kind, size)
    step(model, optimizer, 0)
    both = {"model": model, "optimizer": optimizer}
    as_torch = same_plans_as_torch(model, optimizer)
    numbers, differing = [], []
    with CheckpointManager(f"{directory}-again", keep=last(99), asynchronous=True) as manager:
        for number, change in enumerate(changes(model, optimizer)):
            change()
            manager.save(number, **both)
            manager.wait()
            numbers.append(manager._saver._memory[0].parts.agreed.number)
            with CheckpointManager(f"{directory}-new", keep=last(99), asynchronous=True) as new:
                new.save(number, **both)
            dist.barrier()
            again, fresh = (files(Path(f"{directory}-{run}") / f"step-{number:010d}") for run in ("again", "new"))
            differing.append(sorted(name for name in {**again, **fresh} if again.get(name) != fresh.get(name)))
    return {"as torch": as_torch, "planned": numbers, "differing": differing}


def changes(model, optimizer):
    """Nothing, values, a plain value; what is frozen; names, on one rank only; shards of the same local shape."""
    inner = getattr(model, "module", model)
    yield lambda: None
    yield partial(step, model, optimizer, 1)
    yield lambda: optimizer.param_groups[0].update(lr=0.01)
    yield lambda: [parameter.requires_grad_(False) for parameter in inner[0].parameters()]
    yield lambda: None
    yield lambda: dist.get_rank() and setattr(inner[1], "extra", torch.nn.Parameter(torch.ones(3)))
    yield partial(step, model, optimizer, 2)
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for shape, dimension in (((8, 4), 0), ((4, 8), 1)):
        tensor = distribute_tensor(torch.arange(32.0).reshape(shape), mesh, [Shard(dimension)])
        yield partial(setattr, inner[0], "sharded", torch.nn.Parameter(tensor))
    # The optimizer's state has the same form, and belongs to other parameters.
    optimizer.param_groups[0]["params"].reverse()
    yield partial(optimizer.state.update, {p: deepcopy(s) for p, s in optimizer.state.items()})


def same_plans_as_torch(model, optimizer):
    """Whether the items are those of PyTorch's planner, of the states that PyTorch's functions read."""
    read = (
        (get_model_state_dict(model), rank_state(model, None, _sources.to_copy)),
        (get_optimizer_state_dict(model, optimizer), rank_state(optimizer, model, _sources.to_copy)),
    )
    for state, ours in read:
        planner = DefaultSavePlanner()
        planner.set_up_planner(state, is_coordinator=dist.get_rank() == 0)
        if planner.create_local_plan() != RankPart(ours).plan():
            return False
    return True


def files(directory):
    """The bytes of the files of model and optimizer, by name."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.parent.name in ("model", "optimizer")
    }
