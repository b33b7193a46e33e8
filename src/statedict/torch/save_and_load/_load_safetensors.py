"""torch.load of files with the suffix `.safetensors`: tensors by name, as safetensors' own reader returns them."""

from __future__ import annotations

from typing import Any

import torch

from statedict import formats
from statedict.state import library, materialize

from ._load_locations import MapLocation


def load_safetensors(path: str, where: MapLocation) -> dict[str, Any]:
    """Load the tensors of the file onto the device `where`; raises RuntimeError if that is a mapping or function."""
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
