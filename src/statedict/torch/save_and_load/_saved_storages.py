"""The storages of an object that is being saved: what a pickle says in their place, and which are to be written.

One memory has one dtype in a file, and one record, whoever else shows it. Where a storage lay is told by PyTorch's registry
(`torch.serialization.register_package`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, repeat
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch.serialization import location_tag, normalize_storage_type

from statedict.state import Wholes

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

    def add_all(self, addresses: Sequence[int], dtypes: Sequence[torch.dtype]) -> bool:
        """Remember many that are new; False, and none is, where any is not."""
        new = dict(zip(addresses, dtypes))
        if len(new) < len(addresses) or not self._dtypes.keys().isdisjoint(new):
            return False
        self._dtypes |= new
        return True


class Numbered:
    """The storages of an archive, numbered in the order in which they are first seen; `found` has them in order, those that
    came in columns as they came."""

    def __init__(self) -> None:
        self.found: list[torch.UntypedStorage | Wholes] = []
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
            self.found.append(storage)
        return known

    def number_all(self, wholes: Wholes, dtypes: Sequence[torch.dtype]) -> int | None:
        """The number of the first one's storage, the others' following; None where each has to be asked for alone: it is
        known, or shared, or somebody else may say where it lies."""
        first, storages = len(self._keys), list(map(attrgetter("_cdata"), wholes.owners))
        new = dict(zip(storages, zip(map(str, count(first)), repeat("cpu"))))
        if len(new) < len(storages) or not self._keys.keys().isdisjoint(new) or not _tags_are_torchs():
            return None
        if not self._dtypes.add_all(wholes.pointers, dtypes):
            return None
        self._keys |= new
        self.found.append(wholes)
        return first


def _tags_are_torchs() -> bool:
    """Whether nobody is asked before PyTorch what a storage's place on the CPU is called."""
    serialization: Any = torch.serialization
    return serialization._package_registry[0][1] is serialization._cpu_tag
