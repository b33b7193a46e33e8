"""Tensors go to the device they were saved from, or to the one the caller names.

A file says where each storage lay (`"cuda:1"`). By default a tensor goes back there if this machine has that device, and to
the CPU if not: a checkpoint of a GPU run opens on a laptop. Whole storages move, so ties stay ties.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from statedict.state import Compound, Leaf, many

_CPU = torch.device("cpu")
MapLocation = str | torch.device | Mapping[str, str] | None


def place(tensors: Sequence[torch.Tensor], leaves: Sequence[Leaf | Compound], where: MapLocation) -> list[torch.Tensor]:
    """The tensors on their devices; `leaves` tell where each was saved from.

    `where` is a device for all, a mapping of saved location to device, or None: back where they were, if that is here.
    Raises RuntimeError (torch's own) where the caller names a device that this machine does not have.
    """
    choose = lru_cache(_chooser(where))
    rows = many(leaves)
    locations = list(map(_location, leaves)) if rows is None else rows.of_each(lambda kind: kind.location)
    if all(choose(location) == _CPU for location in set(locations)) and all(tensor.is_cpu for tensor in tensors):
        return list(tensors)
    moved: dict[Hashable, torch.UntypedStorage] = {}
    return [_placed(tensor, choose(location), moved) for tensor, location in zip(tensors, locations)]


def available(location: str) -> bool:
    """Whether this machine has the device that a location names.

    >>> available("cpu"), available("cuda:4096")
    (True, False)
    """
    kind, _, index = location.partition(":")
    if kind in ("cpu", "meta"):
        return True
    module: Any = getattr(torch, kind, None)
    try:
        return bool(module.is_available() and int(index or 0) < module.device_count())
    except (AttributeError, ValueError):
        return kind == "mps" and torch.backends.mps.is_available()


def _chooser(where: MapLocation) -> Callable[[str], torch.device]:
    if where is None:
        return lambda location: torch.device(location if available(location) else "cpu")
    if isinstance(where, (str, torch.device)):
        device = torch.device(where)
        return lambda location: device
    if isinstance(where, Mapping):
        back = _chooser(None)
        return lambda location: torch.device(where[location]) if location in where else back(location)
    raise TypeError(f"map_location is a device, a mapping of locations to devices, or None, not {type(where).__name__}")


def _location(leaf: Leaf | Compound) -> str:
    first = leaf if isinstance(leaf, Leaf) else next(iter(leaf.parts.values()), None)
    return "cpu" if first is None else first.storage.location


def _placed(tensor: torch.Tensor, device: torch.device, moved: dict[Hashable, torch.UntypedStorage]) -> Any:
    if tensor.device == device or tensor.is_meta:
        return tensor
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested or device.type == "meta":
        return _like(tensor, tensor.detach().to(device))
    storage = tensor.untyped_storage()
    if storage._cdata not in moved:
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        moved[storage._cdata] = flat.to(device).untyped_storage()
    view = torch.empty(0, dtype=tensor.dtype, device=device)
    return _like(tensor, view.set_(moved[storage._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()))


def _like(tensor: torch.Tensor, moved: torch.Tensor) -> Any:
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(moved, tensor.requires_grad)
    return moved.requires_grad_() if tensor.requires_grad else moved
