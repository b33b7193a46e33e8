"""Place the tensors of an optimizer's state, if they fit: on their parameters' devices, in the right dtype.

The state gets the dtypes with which `step()` works: those of the optimizer's own fresh state. Other conversions happen only
if the caller asks for them, and never to a step count, which would stop at 256 in bfloat16.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from statedict.state import DType, Leaf, rows_of
from statedict.state import dtype as find_dtype

from ..tensors._dtypes import DTYPES_OF_TORCH, TORCH_DTYPES
from ..tensors._kinds import kinds_of
from ._fit import NUMBERS, known, misfits
from ._match import Match, SavedEntry
from ._read import Slot

Wanted = torch.dtype | DType | str | None


class StatePlacement(NamedTuple):
    """Where the state of a parameter is placed: its device, whether its step count belongs there, and its dtype.

    `dtype` is None for the dtypes in `present`: those of the optimizer's current state, by key. Other entries keep their
    saved dtype. `as_read`: tensors of a file are placed like this when they are read.
    """

    device: torch.device
    on_device: bool
    dtype: torch.dtype | None
    present: Mapping[Any, torch.dtype] = MappingProxyType({})
    as_read: bool = False


def floating(wanted: Wanted) -> torch.dtype | str | None:
    """Normalise the caller's `dtype=`; raises ValueError if it is not a floating-point dtype."""
    if wanted is None:
        return None
    if isinstance(wanted, str) and wanted == "parameter":
        return "parameter"
    if not isinstance(wanted, torch.dtype):
        try:
            wanted = TORCH_DTYPES[find_dtype(wanted)]
        except KeyError:
            raise ValueError(
                f'dtype must be a floating-point dtype, its name, or "parameter", not {wanted!r}'
            ) from None
    if not wanted.is_floating_point:
        raise ValueError(f"dtype must be a floating-point dtype, not {wanted}")
    return wanted


def place_all(
    optimizer: torch.optim.Optimizer, found: Match, groups: Sequence[Mapping[str, Any]], dtype: torch.dtype | str | None
) -> list[StatePlacement]:
    """Decide for all pairs where the state is placed; the casts that follow from it are judged later.

    Pairs whose state does not fit become errors. If there are errors already, such as the options of another optimizer,
    those of individual parameters would be consequences, so they are not reported.
    """
    outcome, pairs, found.pairs = found.outcome, found.pairs, []
    check, places = not outcome.errors, []
    forms = _forms(optimizer, pairs)
    decided: dict[Hashable, tuple[list[str], StatePlacement]] = {}
    for form, (slot, entry) in zip(forms or count(), pairs):
        if form not in decided:
            group = groups[slot.group]
            there = _place(optimizer, slot, group, dtype)
            there = there._replace(as_read=bool(forms) and not any(changes(entry.state, there)))
            decided[form] = misfits(optimizer, slot, entry.state, group) if check else [], there
        problems, there = decided[form]
        if problems:
            outcome.errors += [f"{slot.label}: {problem}" for problem in problems]
            continue
        found.pairs.append((slot, entry))
        places.append(there)
        outcome.loaded.append(slot.label)
    return places


def _forms(optimizer: torch.optim.Optimizer, pairs: Sequence[tuple[Slot, SavedEntry]]) -> list[Hashable]:
    """Return a key for each pair; for pairs with equal keys, every decision is the same.

    Thousands of parameters have a few dozen. Returns nothing unless the parameters are on the CPU and all of the state is
    rows of one table.
    """
    states = [{} if entry.state is None else entry.state for _, entry in pairs]
    if not known(optimizer) or not {dict}.issuperset(map(type, states)):
        return []
    rows = rows_of([*chain.from_iterable(map(dict.values, states))])
    kinds = kinds_of([slot.parameter for slot, _ in pairs])
    if rows is None or kinds is None:
        return []
    which = iter(rows.which)
    return [
        (slot.group, kind, *state, *islice(which, len(state)))
        for (slot, _), kind, state in zip(pairs, kinds.which, states)
    ]


def _place(
    optimizer: torch.optim.Optimizer, slot: Slot, group: Mapping[str, Any], dtype: torch.dtype | str | None
) -> StatePlacement:
    """Decide where to place the state of a slot's parameter, whose group will have these options.

    `dtype` is the caller's. The fresh state of PyTorch's own optimizers has the parameter's dtype. Other classes may keep
    state in 8 bits or in float32; only their current state shows it.
    """
    on_device, device = bool(group.get("capturable") or group.get("fused")), slot.parameter.device
    if dtype is not None or known(optimizer):
        wanted = dtype if isinstance(dtype, torch.dtype) else slot.parameter.dtype
        return StatePlacement(device, on_device, wanted)
    state = optimizer.state.get(slot.parameter)
    present = state.items() if isinstance(state, Mapping) else ()
    return StatePlacement(device, on_device, None, {key: v.dtype for key, v in present if isinstance(v, torch.Tensor)})


class Made:
    """A new tensor of the optimizer, in a state that is copied: the copy has the same tensor."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __deepcopy__(self, memo: object) -> Made:
        return self


def changes(value: Any, place: StatePlacement) -> Iterator[tuple[Any, torch.Tensor | Leaf, DType, DType]]:
    """Yield the tensors of a state that will be cast, each with its key and both dtypes; reads nothing."""
    for key, tensor in _tensors(value, None):
        dtype = dtype_of(tensor)
        new = target(dtype, key, place) if dtype else None
        if dtype and new and new is not dtype:
            yield key, tensor, DTYPES_OF_TORCH[dtype], DTYPES_OF_TORCH[new]


def placed(value: Any, place: StatePlacement, key: Any = None) -> Any:
    """Return the value with its tensors converted. Dicts and lists in it are modified in place."""
    if place.as_read:
        return value
    if isinstance(value, Made):
        return value.tensor
    if isinstance(value, torch.Tensor):
        device = place.device if key != "step" or place.on_device else value.device
        dtype = target(value.dtype, key, place)
        return value if value.dtype is dtype and value.device == device else value.to(device=device, dtype=dtype)
    if isinstance(value, dict):
        for inner, entry in value.items():
            value[inner] = placed(entry, place, inner)
    elif isinstance(value, list):
        value[:] = [placed(entry, place) for entry in value]
    elif isinstance(value, tuple):
        entries = [placed(entry, place) for entry in value]
        return type(value)._make(entries) if hasattr(value, "_make") else tuple(entries)
    return value


def dtype_of(value: object) -> torch.dtype | None:
    """Return the dtype of a tensor or Leaf; None if PyTorch does not have it, and for any other value."""
    if isinstance(value, Leaf):
        return TORCH_DTYPES.get(value.spec.dtype)
    return value.dtype if isinstance(value, torch.Tensor) else None


def target(dtype: torch.dtype, key: Any, place: StatePlacement) -> torch.dtype:
    """Return the dtype that a tensor of this dtype, under this key of the state, is cast to."""
    if key == "step" and place.on_device:
        return torch.float32
    wanted = place.dtype or place.present.get(key, dtype)
    if wanted is dtype or key in NUMBERS:
        return dtype
    fits = wanted.is_floating_point if dtype.is_floating_point else dtype.is_complex and wanted.is_complex
    return wanted if fits else dtype


def _tensors(value: Any, key: Any) -> Iterator[tuple[Any, torch.Tensor | Leaf]]:
    if isinstance(value, (torch.Tensor, Leaf)):
        yield key, value
    elif isinstance(value, dict):
        for inner, entry in value.items():
            yield from _tensors(entry, inner)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _tensors(entry, None)
