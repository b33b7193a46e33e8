"""Check whether saved options and entries fit an optimizer and its parameters; the result is a list of error texts.

The state of another optimizer class or another model is detected by its options, its entries and their shapes, before it is
loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from statedict.state import Compound, Leaf, Opaque

from ..snapshots._copy_tree import values_of
from ._read import Slot
from ._rules import Expected, expected, known, lacking, makers, order_matters

Options = Mapping[str, Any]


def wrong_options(optimizer: torch.optim.Optimizer, number: int, options: Options) -> str | None:
    """The reason why the options belong to another optimizer class or contain an unknown class; None if they fit."""
    for key, value in options.items():
        unknown = [inside.path for inside in values_of(value) if isinstance(inside, Opaque)]
        if unknown:
            return f"{key!r} in group {number} of the saved state is an object of the unknown class {unknown[0]}"
    kind, candidates = type(optimizer).__name__, makers(options)
    as_ = f" (options of {' or '.join(maker.__name__ for maker in candidates)})" if candidates else ""
    missing = lacking(optimizer, number, options)
    if missing:
        has = f"it has {_listed(options)}{as_}"
        return f"group {number} of the saved state lacks {_listed(missing)}, which {kind} needs; {has}"
    if known(optimizer) and candidates and not any(isinstance(optimizer, maker) for maker in candidates):
        strange = [key for key in options if key not in optimizer.param_groups[number]]
        return f"group {number} of the saved state has {_listed(strange)}{as_}, but {kind} does not have these options"
    return None


def misfits(optimizer: torch.optim.Optimizer, slot: Slot, state: Any, options: Options) -> list[str]:
    """Errors in the state for the slot's parameter, whose group will have these options."""
    if state is None:
        return []
    if is_lazy(slot.parameter):
        return ["the parameter is not initialized: run a forward pass before loading the optimizer's state"]
    if slot.parameter.is_meta:
        return ["the parameter is on the meta device: move it to a device before loading the optimizer's state"]
    if not isinstance(state, Mapping):
        return [f"its state must be a dict, not {type(state).__name__}"]
    if not state:
        return []
    wanted = expected(optimizer, slot.parameter, options) or _present(optimizer, slot.parameter)
    flat = _flat_problems(optimizer, state) if order_matters(optimizer) else []
    return _problems(type(optimizer).__name__, state, wanted) + flat


def _problems(kind: str, state: Mapping[Any, Any], wanted: Mapping[Any, Expected]) -> list[str]:
    absent = [key for key, entry in wanted.items() if entry.needed and key not in state]
    problems = []
    if absent:
        problems.append(f"its saved state lacks {_listed(absent)}, which {kind} needs; it has {_listed(state)}")
    for key, value in state.items():
        unknown = [inside.path for inside in values_of(value) if isinstance(inside, Opaque)]
        if unknown:
            problems.append(f"its {key!r} is an object of the unknown class {unknown[0]}")
        elif key in wanted:
            shape = _shape(value)
            if not _fits(wanted[key], shape, value):
                found = f"shape {list(shape)}" if shape is not None else type(value).__name__
                problems.append(
                    f"its {key!r} must have shape {list(wanted[key].shape)}, but the saved state has {found}"
                )
    return problems


def _fits(wanted: Expected, shape: tuple[int, ...] | None, value: Any) -> bool:
    if shape is None:
        return value is None and not wanted.needed
    return shape == wanted.shape or (wanted.shape == () and all(size == 1 for size in shape))


def _shape(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, Leaf):
        return value.spec.shape
    if isinstance(value, (torch.Tensor, Compound)):
        return tuple(value.shape)
    return () if isinstance(value, (int, float, complex)) else None


def _present(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict[Any, Expected]:
    """For an optimizer of an unknown class: the entries that currently have the parameter's shape must have it again."""
    state = optimizer.state.get(parameter)
    entries = state.items() if isinstance(state, Mapping) else ()
    shape = tuple(parameter.shape)
    alike = [key for key, value in entries if isinstance(value, torch.Tensor) and value.shape == shape and shape]
    return dict.fromkeys(alike, Expected(shape, needed=False))


def _flat_problems(optimizer: torch.optim.Optimizer, state: Mapping[Any, Any]) -> list[str]:
    total = sum(p.numel() * (2 if p.is_complex() else 1) for group in optimizer.param_groups for p in group["params"])
    return [
        f"its {key!r} must have {total} elements, as all parameters together, but the saved state has shape {list(shape)}"
        for key in ("d", "prev_flat_grad")
        if (shape := _shape(state.get(key))) and shape != (total,)
    ]


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
