"""Runs functions of this file on several ranks: forked from a process that has imported everything.

`python sharded_job.py FOLDER RANKS FUNCTION …`: prints what rank 0 returns for each function, as JSON, a line each. The exit
code is 1 if a rank failed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import statedict


class Plain(torch.nn.Module):
    """Parameters of all shapes: even and uneven, shorter than the number of ranks, a convolution, a tie, a buffer."""

    def __init__(self, seed=None):
        super().__init__()
        generator = torch.Generator().manual_seed(seed or 0)

        def filled(*shape, dtype=torch.float32):
            values = torch.zeros(shape) if seed is None else torch.randn(shape, generator=generator)
            return torch.nn.Parameter(values.to(dtype))

        self.even = filled(8, 12)
        self.uneven = filled(7, 5)
        self.short = filled(1, 6)
        self.vector = filled(9)
        self.kernel = filled(4, 6, 3, 3)
        self.brain = filled(10, 6, dtype=torch.bfloat16)
        self.wide = filled(96, 640)
        self.tie = self.even
        self.register_buffer("count", torch.tensor(0 if seed is None else 7))


class Network(torch.nn.Module):
    """Two layers, for tensor parallelism and FSDP2 by torch's own functions."""

    def __init__(self, seed=None):
        super().__init__()
        torch.manual_seed(seed or 0)
        self.up = torch.nn.Linear(16, 32)
        self.down = torch.nn.Linear(32, 12)
        if seed is None:
            for parameter in self.parameters():
                torch.nn.init.zeros_(parameter)

    def forward(self, x):
        return self.down(self.up(x))


PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def meshes():
    """The meshes of this number of ranks."""
    count = dist.get_world_size()
    yield init_device_mesh("cpu", (count,), mesh_dim_names=("dp",))
    if count == 4:
        yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))


def placements(mesh):
    if mesh.ndim == 1:
        return [[Shard(0)], [Shard(1)], [Replicate()]]
    pairs = (
        (Shard(0), Shard(0)),
        (Shard(0), Shard(1)),
        (Shard(1), Shard(0)),
        (Shard(1), Replicate()),
        (Replicate(), Shard(0)),
    )
    return [list(pair) for pair in pairs]


def distributed(module, mesh, placed):
    """Make every parameter of a module a DTensor; one of fewer dimensions is sharded by its first."""
    with torch.no_grad():
        known = {}
        for name, parameter in list(module.named_parameters(remove_duplicate=False)):
            if id(parameter) not in known:
                own = [Shard(0) if isinstance(p, Shard) and p.dim >= parameter.ndim else p for p in placed]
                made = distribute_tensor(parameter.detach(), mesh, own)
                known[id(parameter)] = parameter, torch.nn.Parameter(made)
            setattr(module, name, known[id(parameter)][1])
    return module


def sharded_models(seed=None):
    """Models of the ranks, sharded in all ways, with a name for each."""
    for mesh in meshes():
        for placed in placements(mesh):
            yield f"{placed} on {mesh.ndim}", "plain", distributed(Plain(seed), mesh, placed)
        if mesh.ndim == 1:
            yield "fsdp", "plain", fully_shard(Plain(seed), mesh=mesh)
            yield "tp", "network", parallelize_module(Network(seed), mesh, PLAN)
            network = fully_shard(Network(seed), mesh=mesh)
            yield "fsdp network", "network", network
        else:
            network = parallelize_module(Network(seed), mesh["tp"], PLAN)
            fully_shard(network.up, mesh=mesh["dp"])
            yield "fsdp and tp", "network", fully_shard(network, mesh=mesh["dp"])


def whole(tensor):
    with torch.no_grad():
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differences(model, expected):
    """The names whose elements differ from those of the expected state, bit by bit."""
    found = model.state_dict() if not hasattr(model, "keys") else model
    return [
        name
        for name, tensor in expected.items()
        if whole(found[name]).dtype != tensor.dtype or not torch.equal(whole(found[name]), tensor)
    ]


def files(folder):
    """The states of the two models in every format, and their files by model."""
    made = {}
    for name, model in (("plain", Plain(1)), ("network", Network(1))):
        state = model.state_dict()
        arrays = {key: tensor for key, tensor in state.items() if tensor.dtype != torch.bfloat16}
        paths = [folder / f"{name}.{suffix}" for suffix in ("pt", "legacy.pt", "safetensors", "npz")]
        torch.save(state, paths[0])
        torch.save(state, paths[1], _use_new_zipfile_serialization=False)
        statedict.save(model, paths[2])
        statedict.save(arrays, paths[3])
        statedict.save(model, folder / f"{name}-shards.safetensors", max_shard_size=3000)
        index = folder / f"{name}-shards.safetensors.index.json"
        dcp.save(state, checkpoint_id=folder / f"{name}-dcp", no_dist=True)
        made[name] = state, [*paths, index, folder / f"{name}-dcp"]
    return made


def table(folder, made):
    """Every source into every sharded model, compared with the whole tensors bit for bit; the combinations that differ."""
    wrong, done = [], 0
    # Chunks written by all ranks, whose boxes are not those of the models that load them.
    for mesh in meshes():
        for number, placed in enumerate(placements(mesh)):
            path = folder / f"dcp-{dist.get_world_size()}-{mesh.ndim}-{number}"
            dcp.save(distributed(Plain(1), mesh, placed).state_dict(), checkpoint_id=path)
            made["plain"][1].append(path)
    for how, kind, _ in sharded_models():
        state, paths = made[kind]
        for path in paths:
            model = next(model for name, _, model in sharded_models() if name == how)
            lacks = "brain" if path.suffix == ".npz" and kind == "plain" else ()
            report = statedict.load_state_dict(model, path, allow_missing=lacks)
            expected = {name: tensor for name, tensor in state.items() if name != lacks}
            found = differences(model, expected)
            if found or not report.ok:
                wrong.append([how, path.name, found, str(report)])
            done += 1
    return {"wrong": wrong, "done": done}


def main(folder, count, *functions):
    made = files(folder)
    children = [os.fork() for _ in range(0)]
    for rank in range(count):
        child = os.fork()
        if child == 0:
            run(folder, rank, count, functions, made)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(int(any(codes)))


def run(folder, rank, count, functions, made):
    code = 1
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=count)
        for name in functions:
            answer = globals()[name](folder, made)
            if rank == 0:
                print(json.dumps(answer), flush=True)
            dist.barrier()
        dist.destroy_process_group()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
