"""Save DTensors as each rank of a job would, one rank after the other: run by test_rank_files.py.

python rank_files_job.py FOLDER
"""

import os
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from tests.forked import child
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

# name: mesh, its dimension names, placements
PLACEMENTS = {
    "rows": ((4,), None, [Shard(0)]),
    "columns": ((4,), None, [Shard(1)]),
    "replicated": ((4,), None, [Replicate()]),
    "both": ((2, 2), ("dp", "tp"), [Shard(0), Shard(1)]),
    "strided": ((2, 2), ("dp", "tp"), [_StridedShard(0, split_factor=2), Shard(0)]),
    "mixed": ((2, 2), ("dp", "tp"), [Replicate(), Shard(-1)]),
}
SHAPES = {"even": (8, 4), "uneven": (5, 7), "short": (2, 3)}


def whole(shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


def saved(rank):
    """Return the state of a rank: each tensor with each placement."""
    state = {}
    for name, (sizes, names, placements) in PLACEMENTS.items():
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
        for label, shape in SHAPES.items():
            local = whole(shape)
            for axis, placement in enumerate(placements):
                if placement.is_replicate():
                    continue
                parts = placement._split_tensor(local, sizes[axis], with_padding=False)[0]
                local = parts[mesh.get_coordinate()[axis]]
            shape = torch.Size(shape)
            stride = whole(shape).stride()
            tensor = DTensor.from_local(
                local.contiguous().clone(), mesh, placements, run_check=False, shape=shape, stride=stride
            )
            state[f"{name}.{label}"] = tensor
    return {"model": state, "weight": torch.nn.Parameter(state["rows.even"]), "step": 3, "rank": rank}


def run(rank, folder):
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=4)
    torch.save(saved(rank), folder / f"state_of_4_rank_{rank}.pt")
    dist.destroy_process_group()


def main(folder):
    """Each rank in a process of its own: a mesh keeps what it knows of the process group."""
    sys.exit(any(os.waitpid(child(partial(run, rank, folder)), 0)[1] for rank in range(4)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
