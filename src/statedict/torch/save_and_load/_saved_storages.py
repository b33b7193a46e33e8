"""The storages of an object that is being saved: their persistent ids, and the list of those to write.

One memory is saved with one dtype and in one record, however many tensors share it. PyTorch's registry
(`torch.serialization.register_package`) determines the saved location of a storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch.serialization import location_tag, normalize_storage_type

from statedict.state import Table

MIXED = "Cannot save multiple tensors or storages that view the same data as different types"


class SavedStorage(NamedTuple):
    """A storage object's bytes, the dtype and class with which it is saved, and its number of elements."""

    storage: torch.UntypedStorage
    dtype: torch.dtype
    kind: Any
    numel: int


def take(obj: Any) -> SavedStorage | None:
    """Describe a storage; None for other objects."""
    if _is_typed(obj):
        kind = getattr(torch, obj._pickle_storage_type())
        return SavedStorage(obj._untyped_storage, obj.dtype, kind, obj._size())
    if torch.is_storage(obj):
        storage: Any = obj
        return SavedStorage(storage, torch.uint8, normalize_storage_type(type(obj)), storage.nbytes())  # type: ignore[no-untyped-call]
    return None


def _is_typed(obj: Any) -> bool:
    return isinstance(obj, torch.storage.TypedStorage)


class OneDtype:
    """The dtype with which each memory is saved."""

    def __init__(self) -> None:
        self._dtypes: dict[int, torch.dtype] = {}

    def check(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> None:
        """Raise RuntimeError if the memory is saved with another dtype. Storages without memory are not compared."""
        address = storage.data_ptr()
        if address and self._dtypes.setdefault(address, dtype) is not dtype:
            raise RuntimeError(MIXED)

    def add_all(self, addresses: Sequence[int], dtypes: Sequence[torch.dtype]) -> bool:
        """Record many new addresses; if any of them is known, record none and return False."""
        new = dict(zip(addresses, dtypes))
        if len(new) < len(addresses) or not self._dtypes.keys().isdisjoint(new):
            return False
        self._dtypes |= new
        return True


class Numbered:
    """The storages of an archive, numbered in the order of their first reference.

    `found` lists them in that order; storages that were added column-wise are one element.
    """

    def __init__(self) -> None:
        self.found: list[torch.UntypedStorage | Table] = []
        self._keys: dict[int, tuple[str, str]] = {}
        self._dtypes = OneDtype()

    def identify(self, obj: Any) -> tuple[Any, ...] | None:
        """The persistent id of a storage; None for other objects."""
        taken = take(obj)
        if taken is None:
            return None
        key, location = self.number(taken.storage, taken.dtype)
        fake = getattr(obj, "_fake_device", None)
        return "storage", taken.kind, key, location if fake is None else str(fake), taken.numel

    def number(self, storage: torch.UntypedStorage, dtype: torch.dtype) -> tuple[str, str]:
        """The storage's number and its location."""
        if storage.device.type != "meta":
            self._dtypes.check(storage, dtype)
        known = self._keys.get(storage._cdata)
        if known is None:
            known = self._keys[storage._cdata] = str(len(self._keys)), location_tag(storage)
            self.found.append(storage)
        return known

    def number_all(self, table: Table, dtypes: Sequence[torch.dtype]) -> int | None:
        """Number many storages consecutively and return the first number.

        Returns None if they must be numbered one by one: a storage is already known or shared, or another package may define
        its location.
        """
        first, storages = len(self._keys), list(map(attrgetter("_cdata"), table.marks[0]))
        new = dict(zip(storages, zip(map(str, count(first)), repeat("cpu"))))
        if len(new) < len(storages) or not self._keys.keys().isdisjoint(new) or not _tags_are_torchs():
            return None
        if not self._dtypes.add_all(table.starts, dtypes):
            return None
        self._keys |= new
        self.found.append(table)
        return first


def _tags_are_torchs() -> bool:
    """Whether PyTorch's own function for the location of CPU storages is the first in the registry."""
    serialization: Any = torch.serialization
    return serialization._package_registry[0][1] is serialization._cpu_tag
