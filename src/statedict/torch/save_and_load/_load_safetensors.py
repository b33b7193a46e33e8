"""Files that end in `.safetensors`, for torch.load: tensors by name, as safetensors' own reader gives them."""

from __future__ import annotations

from typing import Any

import torch

from statedict import formats
from statedict.state import library, materialize

from ._load_locations import MapLocation


def load_safetensors(path: str, where: MapLocation) -> dict[str, Any]:
    """The tensors of the file, on the device that `where` names; raises RuntimeError where it is a mapping or function."""
    if isinstance(where, dict) or callable(where):
        kind = "dict" if isinstance(where, dict) else "callable"
        raise RuntimeError(
            f"Loading safetensors file with {kind} map_location is not supported. Use a device string or torch.device "
            "instead."
        )
    device = torch.device("cpu" if where is None else str(where))
    with formats.open(path) as checkpoint:
        names, leaves = zip(*formats.tensors(checkpoint.object)) if checkpoint.object else ((), ())
        arrays = materialize(leaves, library("torch"), verify=False)
    return {name: array.to(device) for name, array in zip(names, arrays)}
