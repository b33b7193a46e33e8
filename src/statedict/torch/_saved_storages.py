"""The storages of an object that is being saved: what a pickle says in their place, and which are to be written.

One memory has one dtype in a file, and one record, whoever else shows it. Where a storage lay is told by PyTorch's registry
(`torch.serialization.register_package`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.serialization import location_tag, normalize_storage_type

MIXED = "Cannot save multiple tensors or storages that view the same data as different types"


class Taken(NamedTuple):
    """What a storage object is: its bytes, the dtype and class that it is saved as, and how many elements of it."""

    storage: torch.UntypedStorage
    dtype: torch.dtype
    kind: Any
    numel: int


def take(obj: Any) -> Taken | None:
    """What a storage is; None for any other object."""
    if _is_typed(obj):
        kind = getattr(torch, obj._pickle_storage_type())
        return Taken(obj._untyped_storage, obj.dtype, kind, obj._size())
    if torch.is_storage(obj):
        storage: Any = obj
        return Taken(storage, torch.uint8, normalize_storage_type(type(obj)), storage.nbytes())  # type: ignore[no-untyped-call]
    return None


def _is_typed(obj: Any) -> bool:
    return isinstance(obj, torch.storage.TypedStorage)


class OneDtype:
    """Which dtype each memory has been saved as."""

    def __init__(self) -> None:
        self._dtypes: dict[int, torch.dtype] = {}

    def check(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> None:
        """Raise RuntimeError where the memory has been saved as another dtype. Memory that is not there is anybody's."""
        address = storage.data_ptr()
        if address and self._dtypes.setdefault(address, dtype) is not dtype:
            raise RuntimeError(MIXED)


class Numbered:
    """The storages of an archive, numbered in the order in which they are first seen; `found` has them by number."""

    def __init__(self) -> None:
        self.found: dict[str, torch.UntypedStorage] = {}
        self._keys: dict[int, tuple[str, str]] = {}
        self._dtypes = OneDtype()

    def identify(self, obj: Any) -> tuple[Any, ...] | None:
        """The persistent id of a storage; None for any other object."""
        taken = take(obj)
        if taken is None:
            return None
        key, location = self.number(taken.storage, taken.dtype)
        fake = getattr(obj, "_fake_device", None)
        return "storage", taken.kind, key, location if fake is None else str(fake), taken.numel

    def number(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> tuple[str, str]:
        """The storage's number, and where it lies."""
        if storage.device.type != "meta":
            self._dtypes.check(storage, dtype)
        known = self._keys.get(storage._cdata)
        if known is None:
            known = self._keys[storage._cdata] = str(len(self._keys)), location_tag(storage)
            self.found[known[0]] = storage
        return known
