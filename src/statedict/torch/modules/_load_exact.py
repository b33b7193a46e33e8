"""Load slots as PyTorch does: one after the other, each failure as a text; earlier slots stay loaded.

Consecutive ordinary pairs are copied in one call, because no foreign code runs between them.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.nn.parameter import Parameter, is_lazy

from statedict.state import Compound, Leaf, materialize
from statedict.tree import Fit, Slots, not_a_tensor, wrong_size

from ..tensors._copy_pairs import alike, copy_all, failed, is_watched, no_memory
from ..tensors._library import TORCH


def fit_exact(slots: Slots) -> Fit:
    """A Fit whose `act` does all the work, in the order of the slots."""
    failures: set[int] = set()

    def act() -> list[str]:
        if any(isinstance(value, (Leaf, Compound)) for value in slots.values):
            _read(slots)
        return _Filling(slots, failures).fill()

    return Fit(act, failed=failures)


def _read(slots: Slots) -> None:
    lazy = [i for i, value in enumerate(slots.values) if isinstance(value, (Leaf, Compound))]
    slots.values = list(slots.values)
    for i, array in zip(lazy, materialize([slots.values[i] for i in lazy], TORCH)):
        slots.values[i] = array


class _Filling:
    def __init__(self, slots: Slots, failures: set[int]) -> None:
        self.slots = slots
        self.failures = failures
        self.swap = torch.__future__.get_swap_module_params_on_conversion()

    def fill(self) -> list[str]:
        slots, count = self.slots, len(self.slots.keys)
        one_by_one = slots.assign or self.swap or is_watched()
        bulk = () if one_by_one else alike(slots.current, slots.values)
        if len(bulk) == count:
            return self._fill_run(0, count)
        texts: list[str] = []
        ordinary, start = set(bulk), 0
        # Runs of ordinary pairs are copied together, the other pairs one by one.
        while start < count:
            end = start
            while end in ordinary:
                end += 1
            texts += self._fill_run(start, end) if end > start else self._fill_each(start)
            start = max(end, start + 1)
        return texts

    def _fill_run(self, start: int, end: int) -> list[str]:
        current, values = self.slots.current[start:end], self.slots.values[start:end]
        try:
            copy_all(current, values)
            return []
        except Exception:  # noqa: BLE001  # as PyTorch: any failure is a line of text
            return [text for index in range(start, end) for text in self._fill_each(index)]

    def _fill_each(self, index: int) -> list[str]:
        text = self._fill_one(index)
        if text is None:
            return []
        self.failures.add(index)
        return [text]

    def _fill_one(self, index: int) -> str | None:
        slots = self.slots
        key, param, value = slots.keys[index], self._current(index), slots.values[index]
        if not torch.overrides.is_tensor_like(value):  # type: ignore[no-untyped-call]
            return not_a_tensor(key, value)
        lazy = is_lazy(param)
        if not lazy:
            if len(param.shape) == 0 and len(value.shape) == 1 and value.shape[0] == 1:
                # PyTorch 0.3 saved scalars as vectors of one element.
                value = value[0]
            if value.shape != param.shape:
                return wrong_size(key, value.shape, param.shape)
        if param.is_meta and not value.is_meta and not slots.assign:
            warnings.warn(no_memory(key), stacklevel=2)
        try:
            with torch.no_grad():
                self._put(index, param, value)
        except Exception as error:  # noqa: BLE001  # as PyTorch: any failure is a line of text
            return failed(key, param.size(), value.size(), error, "swapping" if self.swap else "copying")
        return None

    def _current(self, index: int) -> Any:
        """The tensor registered now: an earlier slot may have replaced it, if a module has two names."""
        if not self.slots.assign:
            return self.slots.current[index]
        module, name = self.slots.places[index]
        # The registries of a ScriptModule have no `get`.
        registries = (module._parameters, module._buffers)
        found = next((registry[name] for registry in registries if name in registry), None)
        return self.slots.current[index] if found is None else found

    def _put(self, index: int, param: Any, value: Any) -> None:
        if self.swap:
            torch.utils.swap_tensors(param, swapped_in(param, value, self.slots.assign))  # type: ignore[no-untyped-call]
        elif self.slots.assign:
            module, name = self.slots.places[index]
            setattr(module, name, _in_place_of(param, value))
        else:
            param.copy_(value)


def swapped_in(param: Any, value: Any, assign: bool) -> Any:
    """The tensor to be exchanged with `param` by `swap_tensors`."""
    new = param.module_load(value, assign=assign)
    if new is value or new is param:
        raise RuntimeError(
            "module_load returned one of self or other, please .detach() "
            "the result if returning one of the inputs in module_load"
        )
    return _in_place_of(param, new)


def _in_place_of(param: Any, value: Any) -> Any:
    """The object to register in place of `param`. PyTorch sets the `requires_grad` of a value that is a Parameter."""
    if not isinstance(param, Parameter):
        return value
    if isinstance(value, Parameter):
        return value.requires_grad_(param.requires_grad)
    return Parameter(value, requires_grad=param.requires_grad)
