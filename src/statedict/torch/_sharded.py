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


def write_sharded(obj: Any, path: Path, model: Any = None) -> None:
    """Every rank's part of a module's or optimizer's state, into the directory `path`; called by all ranks."""
    import torch.distributed.checkpoint as dcp

    dcp.save(_state(obj, model), checkpoint_id=path)  # type: ignore[attr-defined]


def read_sharded(obj: Any, path: Path, model: Any = None) -> None:
    """Load the directory `path` into a module or optimizer, whatever its number of ranks; called by all ranks."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    state = _state(obj, model)
    with warnings.catch_warnings():
        # It warns where one process reads what several wrote, which is what was asked for.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(state, checkpoint_id=path)  # type: ignore[attr-defined]
    if isinstance(obj, torch.optim.Optimizer):
        set_optimizer_state_dict(_named(obj, model), obj, state)
    else:
        set_model_state_dict(obj, state)


def _state(obj: Any, model: Any) -> dict[str, Any]:
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
