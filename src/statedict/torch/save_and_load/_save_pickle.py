"""Pickle an object by the caller's pickle module or by our emitter, and number its storages.

Our emitter is used if it writes exactly what CPython's pickler would write, only faster: plain containers, plain values and
plain tensors, in protocol 2. Everything else is pickled by the module's own Pickler.

One memory is saved with one dtype and in one record, however many tensors share it. PyTorch's registry
(`torch.serialization.register_package`) determines the saved location of a storage.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from operator import attrgetter
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch.nn.parameter import Parameter
from torch.serialization import location_tag, normalize_storage_type
from torch.utils.serialization import config

from statedict.formats.torch_archive import Placement, emit
from statedict.state import Leaf, Table

from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._kinds import kinds_of
from ..tensors._storages import bytes_of, kept_bytes_of

MIXED = "Cannot save multiple tensors or storages that view the same data as different types"
CONTAINERS = {dict, OrderedDict, list, tuple}
PLAIN = CONTAINERS | {str, int, float, bool, type(None)}
TENSORS = {torch.Tensor, Parameter}
# Dtypes without a storage class of their own are saved as bytes.
SAVED_DTYPES = {
    ours: torch.uint8 if theirs in torch.storage._new_dtypes() else theirs for ours, theirs in TORCH_DTYPES.items()
}


def pickled(obj: object, module: ModuleType, protocol: int) -> tuple[bytes, Numbered]:
    """Return the pickle, and the storages that it refers to."""
    storages = Numbered()
    if module is pickle and protocol == 2 and is_plain(obj):
        return emit(obj, lambda leaf: _place(storages, leaf), lambda table: _place_all(storages, table)), storages
    out = io.BytesIO()

    class ArchivePickler(module.Pickler):  # type: ignore[name-defined, misc]
        def persistent_id(self, obj: Any) -> Any:
            return storages.identify(obj)

    pickler = ArchivePickler(out, protocol=protocol)
    pickler.dump(obj)
    return out.getvalue(), storages


def is_plain(obj: object) -> bool:
    """Return whether our emitter writes the object exactly as a pickler would."""
    if not modes_are_off():
        return False
    root = [obj]
    stack: list[Any] = [root]
    seen: set[int] = set()
    tensors: list[Any] = []
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        inside = _inside(value)
        kinds = set(map(type, inside))
        if not kinds <= PLAIN | TENSORS:
            return False
        if kinds & TENSORS:
            tensors += inside if kinds <= TENSORS else [part for part in inside if type(part) in TENSORS]
        if kinds & CONTAINERS:
            stack += [part for part in inside if type(part) in CONTAINERS]
    return _are_plain(tensors)


def modes_are_off() -> bool:
    """Return whether no mode of torch is active that changes how tensors are made or pickled."""
    tls = torch.serialization._serialization_tls
    return not (tls.skip_data or tls.materialize_fake_tensors) and not (
        torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack()
    )


def _inside(value: Any) -> list[Any]:
    if type(value) is list or type(value) is tuple:
        return list(value)
    found = [*value.keys(), *value.values()]
    if type(value) is OrderedDict and value.__dict__:
        found += [*value.__dict__, *value.__dict__.values()]
    return found


def _are_plain(tensors: Sequence[Any]) -> bool:
    """Return whether all tensors are plain. Checked column-wise first, which is faster."""
    in_columns = (
        kinds_of(tensors) is not None
        and all(map(torch._C._has_storage, tensors))
        and not any(any(map(trait, tensors)) for trait in _TRAITS)
    )
    return in_columns or all(map(_is_plain_tensor, tensors))


def _is_plain_tensor(tensor: Any) -> bool:
    # `_backward_hooks` of a Parameter is a descriptor of Tensor's; its `__dict__` is empty unless attributes were set.
    return (
        tensor.is_cpu
        and tensor.layout is torch.strided
        and not (tensor.is_quantized or tensor.is_nested or tensor.__dict__ or tensor._backward_hooks)
        and not torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python)
        and torch._C._has_storage(tensor)
        and not tensor._is_zerotensor()
    )


def _place(storages: Numbered, leaf: Leaf) -> Placement:
    key, location = storages.number(leaf.storage.where, SAVED_DTYPES[leaf.spec.dtype])
    return Placement(key, location, leaf.storage.nbytes, leaf.spec)


def _place_all(storages: Numbered, table: Table) -> int | None:
    return storages.number_all(table, table.of_each(lambda kind: SAVED_DTYPES[kind.spec.dtype]))


_TRAITS = attrgetter("__dict__"), attrgetter("_backward_hooks"), torch.Tensor._is_zerotensor


# storages


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
    """Return whether PyTorch's own function for the location of CPU storages is the first in the registry."""
    serialization: Any = torch.serialization
    return serialization._package_registry[0][1] is serialization._cpu_tag


def storage_views(storage: torch.UntypedStorage) -> Iterator[memoryview]:
    """The bytes of a storage; those of other devices are copied to the CPU for as long as they are written."""
    if not storage.nbytes():
        return
    # The object that is saved keeps its own storages alive; a copy must be kept alive by its view.
    yield bytes_of(storage) if storage.device.type == "cpu" else kept_bytes_of(_fetched(storage))


def _fetched(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if not config.save.use_pinned_memory_for_d2h or accelerator is None or accelerator.type != storage.device.type:
        here: torch.UntypedStorage = storage.cpu()  # type: ignore[no-untyped-call]
        return here
    pinned = torch.empty(storage.nbytes(), dtype=torch.uint8, device="cpu", pin_memory=True).untyped_storage()
    pinned.copy_(storage)
    torch.accelerator.current_stream(storage.device.index).synchronize()
    return pinned
