"""Directories of torch_checkpointing: a file for each rank, and metadata that says which part of a tensor is in it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import pickles as p
from .torch_zips import torch_zip
from .zips import FOUR

Edit = Callable[[dict[str, Any]], object]


def entry(shape: tuple[int, ...] = (8,)) -> dict[str, Any]:
    """What the metadata says of a float32 tensor divided among two ranks along its first axis."""
    mesh = {"device_type": "cpu", "mesh_shape": (2,), "mesh_data": (0, 1), "mesh_dim_names": None}
    data = {
        "global_shape": list(shape),
        "dtype": "torch.float32",
        "stride": [1] * len(shape),
        "mesh_spec": mesh,
        "placements": [{"type": "Shard", "dim": 0}],
    }
    return {"sharding_metadata": {"type": "DTensorShardingMetadata", "data": data}, "ranks": (0, 1)}


def files(edit: Edit = lambda item: None, version: str = "2.0") -> dict[str, bytes]:
    """The files of a model with the weight "w" of eight elements on two ranks; `edit` changes its metadata."""
    item = {"nested_path_to_metadata": {'["w"]': [entry()]}, "rank_to_layout_info": {0: None, 1: None}}
    edit(item)
    whole = {"metadata": {"model": item}, "world_size": 2, "version": version}
    parts = {f"model_{rank}.pt": torch_zip(p.state(w=p.tensor()), {"0": FOUR}) for rank in (0, 1)}
    # Protocol 2 has no frames, whose lengths a change would contradict.
    return {**parts, "metadata.pkl": pickle.dumps(whole, 2)}


def directory(
    folder: Path,
    edit: Edit = lambda item: None,
    changes: Mapping[str, bytes | None] | None = None,
    version: str = "2.0",
) -> Path:
    """A directory of these files; `changes` replace files by name, None removes one."""
    inside = folder / "saved"
    inside.mkdir()
    for name, raw in {**files(edit, version), **(changes or {})}.items():
        if raw is not None:
            (inside / name).write_bytes(raw)
    return inside
