"""Pickle an object, with its storages numbered separately, by the caller's pickle module or by our emitter.

Our emitter is used if it writes exactly what CPython's pickler would write, only faster: plain containers, plain values and
plain tensors, in protocol 2. Everything else is pickled by the module's own Pickler.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from operator import attrgetter
from types import ModuleType
from typing import Any

import torch
from torch.nn.parameter import Parameter

from statedict.formats.torch_archive import Placement, emit
from statedict.state import Leaf, Table

from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._kinds import kinds_of
from ._saved_storages import Numbered

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
    """Whether our emitter writes the object exactly as a pickler would."""
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
    """Whether no mode of torch is active that changes how tensors are made or pickled."""
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
    """Whether all tensors are plain. Checked column-wise first, which is faster."""
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
