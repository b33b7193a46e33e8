"""An object as a pickle, with its storages beside it under numbers: by the caller's pickle module, or by our emitter.

Our emitter is given what it writes byte for byte as CPython's pickler does, and 15 times as fast: plain containers of plain
values and plain tensors. Everything else, and every other protocol or pickle module, goes through the module's own Pickler.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from types import ModuleType
from typing import Any

import torch
from torch.nn.parameter import Parameter

from statedict.formats.torch_archive import Placement, emit
from statedict.state import Leaf

from ._dtypes import TORCH_DTYPES
from ._saved_storages import Numbered

PLAIN = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None)}
TENSORS = {torch.Tensor, Parameter}
# The dtypes that have no storage class of their own are saved as bytes.
SAVED_DTYPES = {
    ours: torch.uint8 if theirs in torch.storage._new_dtypes() else theirs for ours, theirs in TORCH_DTYPES.items()
}


def pickled(obj: object, module: ModuleType, protocol: int) -> tuple[bytes, Numbered]:
    """The pickle, and the storages that it names."""
    storages = Numbered()
    if module is pickle and protocol == 2 and is_plain(obj):
        return emit(obj, lambda leaf: _place(storages, leaf)), storages
    out = io.BytesIO()

    class Pickler(module.Pickler):  # type: ignore[name-defined, misc]
        def persistent_id(self, obj: Any) -> Any:
            return storages.identify(obj)

    pickler = Pickler(out, protocol=protocol)
    pickler.dump(obj)
    return out.getvalue(), storages


def is_plain(obj: object) -> bool:
    """Whether our emitter writes the object exactly as a pickler would, without asking it anything."""
    if not modes_are_off():
        return False
    stack, seen = [obj], set()
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind in TENSORS:
            if not _is_plain_tensor(value):
                return False
        elif kind not in PLAIN:
            return False
        elif kind is dict or kind is OrderedDict or kind is list or kind is tuple:
            if id(value) in seen:
                continue
            seen.add(id(value))
            stack.extend(_inside(value))
    return True


def modes_are_off() -> bool:
    """Nothing of torch's is active that would make tensors, or their pickles, something else."""
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


def _is_plain_tensor(tensor: Any) -> bool:
    # A Parameter's own slot for hooks is a descriptor of Tensor's; its dict is empty unless somebody put something there.
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
