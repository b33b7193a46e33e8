"""The location of loaded storages: PyTorch's `map_location`, and its registry of locations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..tensors._storages import fixed

MapLocation = str | bytes | torch.device | Mapping[str, str] | Callable[[Any, str], Any] | None
Restore = Callable[[torch.UntypedStorage, Any], Any]
default_restore_location: Restore = torch.serialization.default_restore_location


def restorer(where: MapLocation) -> Restore:
    """Return a function that moves a storage from the CPU to its device, given its saved location.

    The storages that it returns cannot be resized.
    """
    restore = _restorer(where)
    return lambda storage, location: fixed(restore(storage, location))


def _restorer(where: MapLocation) -> Restore:
    if where is None:
        return default_restore_location
    if isinstance(where, dict):
        return lambda storage, location: default_restore_location(storage, where.get(location, location))
    if isinstance(where, (str, bytes, torch.device)):
        device = str(where) if isinstance(where, torch.device) else where
        return lambda storage, location: default_restore_location(storage, device)
    choose: Any = where

    def restore(storage: torch.UntypedStorage, location: str) -> Any:
        chosen = choose(storage, location)
        return default_restore_location(storage, location) if chosen is None else chosen

    return restore


def is_meta(where: MapLocation) -> bool:
    """Return whether all storages are placed on the meta device, so that no data need be read."""
    return where == "meta" if isinstance(where, str) else isinstance(where, torch.device) and where.type == "meta"


@contextmanager
def announced(where: MapLocation) -> Iterator[None]:
    """Set the location for PyTorch's functions that rebuild tensors without storages."""
    tls = torch.serialization._serialization_tls
    before = tls.map_location
    tls.map_location = where  # type: ignore[assignment]
    try:
        yield
    finally:
        tls.map_location = before
