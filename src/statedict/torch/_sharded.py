"""States of several processes: torch.distributed.checkpoint writes each rank's part and combines the parts again.

A model or optimizer is saved as a directory (`.metadata` and `*.distcp`) with the full parameter names, independently of
wrappers (DDP, FSDP2) and sharding, so that another number of ranks can load it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist

from statedict.errors import LoadError


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


def check_sharded(state: dict[str, Any], path: Path, *, strict: bool) -> None:
    """Raise LoadError if the directory `path` does not contain this state; reads only the metadata.

    `strict`: additional names in the directory are errors, too.
    """
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    planner = DefaultLoadPlanner()
    metadata = FileSystemReader(path).read_metadata()
    try:
        planner.set_up_planner(state, metadata, is_coordinator=False)
        planner.create_local_plan()
    except (RuntimeError, ValueError) as error:
        raise LoadError(f"{path}: {error}") from error
    unexpected = sorted(metadata.state_dict_metadata.keys() - planner.state_dict.keys())
    if strict and unexpected:
        raise LoadError(f"{path}: the object does not have these names: {', '.join(unexpected)}")


def read_sharded(obj: Any, state: dict[str, Any], path: Path, model: Any = None) -> None:
    """Load the directory `path` into a module or optimizer with this state; called by all ranks (any number)."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    with warnings.catch_warnings():
        # PyTorch warns if one process reads what several processes wrote, which is intended here.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(state, checkpoint_id=path)  # type: ignore[attr-defined]
    if isinstance(obj, torch.optim.Optimizer):
        set_optimizer_state_dict(_named(obj, model), obj, state)
    else:
        set_model_state_dict(obj, state)


def sharded_state(obj: Any, model: Any = None) -> dict[str, Any]:
    """This rank's part of the state of a module, or of an optimizer of `model`, by the full parameter names."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_optimizer_state_dict

    found: Mapping[str, Any]
    if isinstance(obj, torch.optim.Optimizer):
        found = get_optimizer_state_dict(_named(obj, model), obj)
    else:
        found = get_model_state_dict(obj)
    return cast("dict[str, Any]", found)


def _named(optimizer: torch.optim.Optimizer, model: Any) -> torch.nn.Module:
    if model is None:
        raise ValueError(
            f"with several processes {type(optimizer).__name__} is saved by the names of its parameters: pass its model to "
            "save() or resume(), too"
        )
    return cast("torch.nn.Module", model)
