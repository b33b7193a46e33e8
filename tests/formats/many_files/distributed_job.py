"""Save a sharded state on two ranks with torch.distributed.checkpoint, together and each for itself.

python distributed_job.py FOLDER
"""

import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.ranks import answers
from torch.distributed.checkpoint import HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def state(rank_mesh):
    """Tensors cut by rows, by columns, unevenly, and not at all; and values that are no tensors."""
    torch.manual_seed(0)
    rows, columns, odd, whole = torch.randn(6, 4), torch.randn(3, 5, 4), torch.arange(7), torch.randn(3)
    return {
        "model": {
            "rows": distribute_tensor(rows, rank_mesh, [Shard(0)]),
            "columns": distribute_tensor(columns.to(torch.bfloat16), rank_mesh, [Shard(1)]),
            "odd": distribute_tensor(odd, rank_mesh, [Shard(0)]),
            "whole": distribute_tensor(whole, rank_mesh, [Replicate()]),
        },
        "step": 12,
        "note": ("a", 1.5),
    }


def save(rank, folder):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    dcp.save(state(mesh), checkpoint_id=folder)
    dcp.save(
        state(mesh)["model"], storage_writer=HuggingFaceStorageWriter(f"{folder}-safetensors", save_distributed=True)
    )
    dcp.save({**state(mesh), "rank": rank}, checkpoint_id=f"{folder}-alone", use_collectives=False)


if __name__ == "__main__":
    answers(2, lambda rank: save(rank, sys.argv[1]))
