"""Directories as torch_checkpointing 0.1 writes them, without it: files of ranks, and `metadata.pkl`.

The entries of `described` equal those that the library writes for the same tensors, meshes and placements. In its files of
torch.save tensors are DTensors; here they are bare local tensors, as in its safetensors files.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.tensor._utils import _compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import Replicate, Shard, _StridedShard

Mesh = tuple[int, ...]
KINDS = {"Shard": Shard, "Replicate": Replicate, "StridedShard": _StridedShard}


def model() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "encoder.weight": torch.randn(7, 4),
        "encoder.bias": torch.randn(7),
        "head.weight": torch.randn(3, 8, dtype=torch.float64),
        "steps": torch.tensor(5),
    }


def placements(tensor: torch.Tensor, *kinds: Any) -> list[dict[str, Any]]:
    """The placement on each mesh dimension, as the metadata has them; scalars are replicated."""
    return [
        {"type": "Replicate"} if kind is None or not tensor.ndim else {"type": "Shard", "dim": kind % tensor.ndim}
        for kind in kinds
    ]


def local(tensor: torch.Tensor, mesh: Mesh, placed: list[dict[str, Any]], rank: int) -> torch.Tensor:
    """A rank's part of a tensor, according to PyTorch."""
    coordinate = list(product(*map(range, mesh)))[rank]
    kinds = [KINDS[each["type"]](*list(each.values())[1:]) for each in placed]
    shape, offset = _compute_local_shape_and_global_offset(tensor.shape, mesh, list(coordinate), kinds)
    return tensor[tuple(slice(at, at + size) for at, size in zip(offset, shape))].clone()


def described(tensor: torch.Tensor, mesh: Mesh, placed: list[dict[str, Any]], ranks: tuple[int, ...]) -> dict[str, Any]:
    spec = {"device_type": "cpu", "mesh_shape": mesh, "mesh_data": ranks, "mesh_dim_names": None}
    data = {
        "global_shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "stride": list(tensor.stride()),
        "mesh_spec": spec,
        "placements": placed,
    }
    return {"sharding_metadata": {"type": "DTensorShardingMetadata", "data": data}, "ranks": ranks}


def metadata(items: Mapping[str, Any], world_size: int) -> bytes:
    return pickle.dumps({"metadata": dict(items), "world_size": world_size, "version": "2.0"})


def written(folder: Path, mesh: Mesh, *kinds: Any, safetensors: bool = False) -> dict[str, Any]:
    """Write the items `model` and `optim` (described), `step` and `config` of every rank; return the metadata's items."""
    world = 1
    for size in mesh:
        world *= size
    ranks = tuple(range(world))
    state, entries, trees = model(), {}, [{} for _ in ranks]
    moments = {index: {"exp_avg": value * 2} for index, value in enumerate(state.values())}
    optimizers = [
        {"state": {i: {} for i in moments}, "param_groups": [{"lr": 0.1, "params": [*moments]}]} for _ in ranks
    ]
    for name, tensor in state.items():
        placed = placements(tensor, *kinds)
        entries[json.dumps([name])] = [described(tensor, mesh, placed, ranks)]
        for rank in ranks:
            trees[rank][name] = local(tensor, mesh, placed, rank)
    optimizer_entries = {}
    for index, moment in moments.items():
        placed = placements(moment["exp_avg"], *kinds)
        optimizer_entries[json.dumps(["state", index, "exp_avg"], separators=(",", ":"))] = [
            described(moment["exp_avg"], mesh, placed, ranks)
        ]
        for rank in ranks:
            optimizers[rank]["state"][index]["exp_avg"] = local(moment["exp_avg"], mesh, placed, rank)
    folder.mkdir(exist_ok=True)
    layouts = dict.fromkeys(ranks)
    if safetensors:
        (folder / "weights").mkdir()
        kind = {"type": "SafetensorsSerialization"}
        layouts = {r: {"file_path": f"weights/m_{r}.safetensors", "serialization_format": kind} for r in ranks}
    for rank in ranks:
        if safetensors:
            save_file(trees[rank], folder / layouts[rank]["file_path"])
        else:
            torch.save(trees[rank], folder / f"model_{rank}.pt")
        torch.save(optimizers[rank], folder / f"optim_{rank}.pt")
        torch.save(17, folder / f"step_{rank}.pt")
        (folder / f"config_{rank}.json").write_text('{"lr": 0.1}')
    items = {
        "model": {"nested_path_to_metadata": entries, "rank_to_layout_info": layouts},
        "optim": {"nested_path_to_metadata": optimizer_entries, "rank_to_layout_info": dict.fromkeys(ranks)},
    }
    (folder / "metadata.pkl").write_bytes(metadata(items, world))
    return items
