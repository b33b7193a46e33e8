"""Pairs of a model's tensor and its value: which are ordinary enough to be copied in one call.

PyTorch's error texts for pairs that do not fit are here, too: programs match on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, eq
from typing import Any

import torch
from torch.nn.parameter import Parameter

from ._dtypes import NUMBERS

ORDINARY = frozenset({torch.Tensor, Parameter})
_DTYPE, _LAYOUT, _ON_CPU, _DEVICE = (attrgetter(name) for name in ("dtype", "layout", "is_cpu", "device"))
_FACTS = attrgetter("shape", "dtype", "device", "layout")
_STRIDED = frozenset({torch.strided})
_IS_SAME_SIZE = torch.Tensor.is_same_size
POINTER = torch._C.TensorBase.data_ptr


def alike(current: Sequence[Any], values: Sequence[Any]) -> Sequence[int]:
    """The indices of pairs of ordinary strided tensors with equal shape, (numeric) dtype and device, in order."""
    if ORDINARY.isdisjoint(map(type, values)):
        return ()
    if _are_all_alike(current, values):
        return range(len(current))
    return [index for index, pair in enumerate(zip(current, values)) if _is_alike(*pair)]


def _are_all_alike(current: Sequence[Any], values: Sequence[Any]) -> bool:
    """Check all pairs at once, column by column in C, which is faster than a loop."""
    if not (ORDINARY.issuperset(map(type, current)) and ORDINARY.issuperset(map(type, values))):
        return False
    if not (all(map(_ON_CPU, current)) and all(map(_ON_CPU, values))) and not all(
        map(eq, map(_DEVICE, current), map(_DEVICE, values))
    ):
        return False
    if not (_STRIDED.issuperset(map(_LAYOUT, current)) and _STRIDED.issuperset(map(_LAYOUT, values))):
        return False
    dtypes = list(map(_DTYPE, current))
    if not NUMBERS.issuperset(dtypes) or dtypes != list(map(_DTYPE, values)):
        return False
    try:
        return all(map(_IS_SAME_SIZE, current, values))
    except RuntimeError:
        # One of them is a nested tensor.
        return False


def _is_alike(a: Any, b: Any) -> bool:
    if not (type(a) in ORDINARY and type(b) in ORDINARY) or a.is_nested or b.is_nested:
        return False
    facts: tuple[Any, ...] = _FACTS(a)
    return facts == _FACTS(b) and a.layout is torch.strided and a.dtype in NUMBERS


def addresses(tensors: Sequence[Any]) -> list[int]:
    """The address of each tensor's elements; 0 for a tensor without memory."""
    if ORDINARY.issuperset(map(type, tensors)):
        try:
            return list(map(POINTER, tensors))
        except RuntimeError:
            pass
    return [_address(tensor) for tensor in tensors]


def _address(tensor: Any) -> int:
    try:
        return int(tensor.data_ptr())
    except (RuntimeError, ValueError, AttributeError):
        return 0


def is_watched() -> bool:
    """Whether a dispatch or function mode is active, which must see every operation that PyTorch would execute."""
    return bool(torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack())


def copy_all(current: list[Any], values: list[Any]) -> None:
    """Copy each value into its tensor, in order, in as few calls as possible."""
    if not current:
        return
    with torch.no_grad():
        if all(map(_ON_CPU, current)):
            torch._foreach_copy_(current, values)
            return
        # On other devices the pairs of one call are copied concurrently: one call for each dtype and device, and one by one
        # if a tensor occurs twice, because the last value must win.
        if len(set(map(id, current))) < len(current):
            for tensor, value in zip(current, values):
                tensor.copy_(value)
            return
        groups: dict[Any, tuple[list[Any], list[Any]]] = {}
        for tensor, value in zip(current, values):
            group = groups.setdefault((tensor.device, tensor.dtype, value.device, value.dtype), ([], []))
            group[0].append(tensor)
            group[1].append(value)
        for tensors, found in groups.values():
            torch._foreach_copy_(tensors, found)


def failed(key: str, wanted: object, found: object, error: BaseException, action: str = "copying") -> str:
    return (
        f'While {action} the parameter named "{key}", '
        f"whose dimensions in the model are {wanted} and "
        f"whose dimensions in the checkpoint are {found}, "
        f"an exception occurred : {error.args}."
    )


def no_memory(key: str) -> str:
    return (
        f"for {key}: copying from a non-meta parameter in the checkpoint to a meta "
        "parameter in the current model, which is a no-op. (Did you mean to "
        "pass `assign=True` to assign items in the state dictionary to their "
        "corresponding key in the module instead of copying them in place?)"
    )
