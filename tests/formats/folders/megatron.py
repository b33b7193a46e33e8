"""Make checkpoints as Megatron-core writes them, without Megatron (checked against megatron-core 0.12.3, 0.15.0, 0.16.1).

`save` takes what the ranks have: tensors in parts, and objects by their keys (`rng_state/shard_0.1_1.2`). It uses
torch.distributed.checkpoint as Megatron does: flat names, one file for each rank, objects in lists.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

CONFIG = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
MODULE = "megatron.core.dist_checkpointing.strategies.torch"


class InParts(torch.Tensor):
    """A tensor of which one process saves several parts, by their offsets: as Megatron's LocalShardsContainer."""

    @staticmethod
    def __new__(cls, shape, parts):
        return torch.Tensor._make_wrapper_subclass(cls, torch.Size(shape))

    def __init__(self, shape, parts):
        self.whole, self.parts = torch.Size(shape), {torch.Size(at): part.contiguous() for at, part in parts.items()}

    def __create_write_items__(self, fqn, _):
        items = []
        for number, (at, part) in enumerate(self.parts.items()):
            chunk = ChunkStorageMetadata(offsets=at, sizes=part.shape)
            data = TensorWriteData(chunk, TensorProperties.create_from_tensor(part), self.whole)
            items.append(WriteItem(MetadataIndex(fqn, at, number), WriteItemType.SHARD, tensor_data=data))
        return items

    def __create_chunk_list__(self):
        return [ChunkStorageMetadata(offsets=at, sizes=part.shape) for at, part in self.parts.items()]

    def __get_tensor_shard__(self, index):
        return self.parts[index.offset]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError


def split(tensor, axis, count, layers=True):
    """A tensor in parts, as tensor-parallel ranks have them; `layers`: the first axis is that of the layers, each saved by
    itself."""
    places = [(n,) for n in range(tensor.shape[0])] if layers else [()]
    size = tensor.shape[axis] // count
    parts = {}
    for place in places:
        for rank in range(count):
            at = [*place, *[0] * (tensor.ndim - len(place))]
            at[axis] = rank * size
            lengths = [*[1] * len(place), *tensor.shape[len(place) :]]
            lengths[axis] = size
            parts[tuple(at)] = tensor[tuple(slice(a, a + n) for a, n in zip(at, lengths))]
    return InParts(tensor.shape, parts)


def flattened(tensor, axis, tensor_parallel, data_parallel):
    """A tensor as Megatron-core before 0.16 stored it for the distributed optimizer: its flat parts in ranges."""
    grid = [tensor.shape[0], *[1] * (tensor.ndim - 1)]
    grid[axis] = tensor_parallel
    parts = {}
    for at, part in split(tensor, axis, tensor_parallel).parts.items():
        cell = tuple(a // n for a, n in zip(at, part.shape))
        flat = part.reshape(-1)
        step = -(-len(flat) // data_parallel)
        for start in range(0, len(flat), step):
            parts[(*cell, start)] = flat[start : start + step].reshape(*[1] * tensor.ndim, -1)
    numel = tensor.numel() // (tensor.shape[0] * tensor_parallel)
    return InParts((*grid, numel), parts)


def save(folder, values: dict[str, Any], common: dict[str, Any], original: dict[str, tuple[int, ...]] | None = None):
    """Write a `torch_dist` folder. `original`: the shapes of tensors that are stored flat."""
    with warnings.catch_warnings(action="ignore"):
        objects = {name: value if isinstance(value, torch.Tensor) else [value] for name, value in values.items()}
        dcp.save(objects, checkpoint_id=str(folder), planner=dcp.DefaultSavePlanner(flatten_state_dict=False))
    torch.save(common, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps(CONFIG))
    if original is not None:
        _add_original_shapes(folder, original)
    return folder


def _add_original_shapes(folder, original):
    """Rewrite the metadata as an instance of the class that Megatron-core 0.15 has for it."""
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    fake = types.ModuleType(MODULE)
    made = dataclass(type("MCoreMetadata", (type(metadata),), {"__module__": MODULE}))
    fake.MCoreMetadata = made
    new = made(**vars(metadata))
    new.mcore_data = {name: {"nd_reformulated_orig_global_shape": shape} for name, shape in original.items()}
    names = [MODULE.rsplit(".", n)[0] for n in range(MODULE.count(".") + 1)]
    sys.modules.update(dict.fromkeys(names, fake))
    try:
        (folder / ".metadata").write_bytes(pickle.dumps(new))
    finally:
        for name in names:
            del sys.modules[name]


def training(tensor_parallel=2):
    """The values of a small model in two layers, and what they are as whole tensors."""
    torch.manual_seed(0)
    whole = {
        "embedding.word_embeddings.weight": torch.randn(8, 4),
        "decoder.layers.mlp.linear_fc1.weight": torch.randn(2, 6, 4),
        "decoder.layers.mlp.linear_fc2.weight": torch.randn(2, 4, 6).to(torch.bfloat16),
        "decoder.final_layernorm.weight": torch.randn(4),
    }
    axes = dict(zip(whole, (0, 1, 2, None)))
    kinds = ("exp_avg", "exp_avg_sq", "fp32_param")
    state = {name: {kind: torch.randn(value.shape) for kind in kinds} for name, value in whole.items()}
    keys = {f"optimizer.state.{kind}.{name}": value for name, entry in state.items() for kind, value in entry.items()}
    values = {}
    for key, value in {**whole, **keys}.items():
        axis = next(axis for name, axis in axes.items() if key.endswith(name))
        values[key] = value if axis is None else split(value, axis, tensor_parallel, layers=value.ndim == 3)
    for layer in range(2):
        values[f"decoder.layers.mlp.linear_fc1._extra_state/shard_{layer}_2"] = None
    for rank in range(tensor_parallel):
        values[f"rng_state/shard_0.{rank}_1.{tensor_parallel}"] = [{"random_rng_state": rank}]
    return values, whole, state


COMMON = {
    "args": argparse.Namespace(num_layers=2),
    "iteration": 10,
    "checkpoint_version": 3.0,
    "opt_param_scheduler": {"num_steps": 10},
    "optimizer": {
        "optimizer": {
            "param_groups": [{"lr": 0.1, "wd_mult": 1.0}, {"lr": 0.1, "wd_mult": 0.0}],
            "state": {"common_step": 2},
        },
        "param_state_sharding_type": "fully_reshardable",
    },
}
