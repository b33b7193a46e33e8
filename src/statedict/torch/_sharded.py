"""States of several processes: torch.distributed.checkpoint writes each rank's part.

A model or optimizer is saved as a directory (`.metadata` and `*.distcp`) with the full parameter names, independently of
wrappers (DDP, FSDP2) and sharding. `load_state_dict` reads it like any other file, on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from .snapshots._copy_tree import values_of
from .tensors._dtensor import any_sharded, is_sharded


def ranks() -> tuple[int, int]:
    """This process's rank and the number of processes; (0, 1) if torch.distributed is not initialised.

    >>> ranks()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def write_sharded(state: dict[str, Any], path: Path) -> None:
    """Write every rank's part of a state (`sharded_state`) into the directory `path`; called by all ranks."""
    import torch.distributed.checkpoint as dcp

    dcp.save(state, checkpoint_id=path)  # type: ignore[attr-defined]


def has_shards(obj: Any) -> bool:
    """Return whether a module or optimizer has a DTensor; False for any other object."""
    if isinstance(obj, torch.nn.Module):
        return any_sharded(obj.parameters(), obj.buffers())
    if isinstance(obj, torch.optim.Optimizer):
        return any_sharded(*(group["params"] for group in obj.param_groups), values_of(list(obj.state.values())))
    return False


def holds_shards(tree: Any) -> bool:
    """Return whether there is a DTensor in a tree of dicts, lists and tuples."""
    return any_sharded(values_of(tree))


def sharded_state(obj: Any, model: Any = None) -> dict[str, Any]:
    """This rank's part of the state of a module, or of an optimizer of `model`, by the full parameter names."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    found: Mapping[str, Any]
    if isinstance(obj, torch.optim.Optimizer):
        is_new = not obj.state
        found = get_optimizer_state_dict(_named(obj, model), obj)
        if is_new:
            # PyTorch has made a state to save one, with a step counted that was never taken.
            obj.state.clear()
            found = {**found, "state": {}}
    else:
        found = get_model_state_dict(obj)
        if ranks()[0]:
            found = _without_copies(found, obj)
    return cast("dict[str, Any]", found)


def _without_copies(state: Mapping[str, Any], module: torch.nn.Module) -> dict[str, Any]:
    """The state without buffers and other values that every rank has: those of rank 0 are saved.

    PyTorch would save those of any rank. They can differ: the running statistics of batch normalisation are those of a
    rank's own batches, and DDP continues with those of rank 0.
    """
    parameters = {parameter.data_ptr() for parameter in module.parameters() if not is_sharded(parameter)}
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and (is_sharded(value) or value.data_ptr() in parameters)
    }


def _named(optimizer: torch.optim.Optimizer, model: Any) -> torch.nn.Module:
    if model is None:
        raise ValueError(
            f"{type(optimizer).__name__} is saved by the names of its parameters if it is sharded or there are several "
            "processes: pass its model to save(), too"
        )
    return cast("torch.nn.Module", model)
