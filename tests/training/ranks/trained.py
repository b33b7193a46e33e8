"""What the ranks train and save."""

import torch
import torch._dynamo  # an optimizer and a save import it when they are made: seconds, for each rank
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


class Fails(torch.nn.Linear):
    """A module whose state cannot be had on rank 1."""

    def state_dict(self, *args, **kwargs):
        if dist.get_rank() == 1:
            raise OSError("no state here")
        return super().state_dict(*args, **kwargs)


def training(kind, size):
    """A model and an optimizer that has a state, alike on all ranks."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4))
    if kind == "fsdp":
        model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (size,)))
    elif kind == "tp":
        mesh = dist.device_mesh.init_device_mesh("cpu", (size,))
        model = parallelize_module(model, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()})
    elif kind == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def step(model, optimizer, seed):
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def numbers(model, optimizer):
    """Every element of parameters and moments, whole, as the same list on any number of ranks."""
    found = [whole(p.detach()).flatten().tolist() for p in model.parameters()]
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        found += [whole(state[name]).flatten().tolist() for name in ("exp_avg", "exp_avg_sq", "step")]
    return found
