"""States of several processes: torch.distributed.checkpoint writes each rank's part and puts parts together again.

A model or optimizer becomes a directory (`.metadata` and `*.distcp`) with the parameters' full names, whatever wraps the
model (DDP, FSDP2) and however it is sharded, so another number of ranks can load it.
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
    """This process's rank and how many there are; (0, 1) where torch.distributed was not initialised.

    >>> ranks()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def from_first(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all(value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def write_sharded(state: dict[str, Any], path: Path) -> None:
    """Every rank's part of a state (`sharded_state`) into the directory `path`; called by all ranks."""
    import torch.distributed.checkpoint as dcp

    dcp.save(state, checkpoint_id=path)  # type: ignore[attr-defined]


def check_sharded(state: dict[str, Any], path: Path, *, strict: bool) -> None:
    """Raise LoadError where the directory `path` does not hold this state; reads only what it says of itself.

    `strict`: names that it holds and the state has not are wrong, too.
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
        raise LoadError(f"{path}: it holds names that the object has not: {', '.join(unexpected)}")


def read_sharded(obj: Any, state: dict[str, Any], path: Path, model: Any = None) -> None:
    """Load the directory `path` into a module or optimizer that has this state; called by all ranks, however many."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    with warnings.catch_warnings():
        # It warns where one process reads what several wrote, which is what was asked for.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(state, checkpoint_id=path)  # type: ignore[attr-defined]
    if isinstance(obj, torch.optim.Optimizer):
        set_optimizer_state_dict(_named(obj, model), obj, state)
    else:
        set_model_state_dict(obj, state)


def sharded_state(obj: Any, model: Any = None) -> dict[str, Any]:
    """This rank's part of the state of a module, or of an optimizer of the `model`, by the parameters' full names."""
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
            f"{type(optimizer).__name__} is saved by its parameters' names when several processes train: "
            "save its model beside it"
        )
    return cast("torch.nn.Module", model)
