"""Load by swapping tensors, all or nothing (`torch.__future__.set_swap_module_params_on_conversion`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.parameter import Parameter

from statedict.errors import LoadError
from statedict.state import Compound
from statedict.tree import Fit, Rules, Slots

from ..tensors._copy_pairs import failed
from ._backup import keep
from ._fits import MisfitError, check_replacement, checked, made_for, read_now
from ._load_exact import swapped_in
from ._ties import contradictions


class Swapping:
    """Slots whose tensors are swapped with new ones. `fit.act` swaps them, or raises and swaps them back."""

    def __init__(self, slots: Slots, rules: Rules) -> None:
        self.slots = slots
        self.rules = rules
        self.fit = Fit(self.act)
        self.values: list[Any] = list(slots.values)
        problems: dict[int, str] = {}
        for index in range(len(slots.keys)):
            try:
                self.values[index] = self._decide(index)
            except MisfitError as misfit:
                problems[index] = str(misfit)
        objects = list(map(id, slots.current))
        ties = contradictions(slots, self.values, objects, len(set(objects)), verify=rules.verify)
        self.fit.refuse(ties | problems)

    def _decide(self, index: int) -> Any:
        key, param = self.slots.keys[index], self.slots.current[index]
        value = checked(key, param, self.slots.values[index])
        if isinstance(value, Compound):
            check_replacement(key, param, value)
        value = made_for(param, read_now(value, verify=self.rules.verify))
        try:
            with torch.no_grad():
                # A copy, because `module_load` may write into the tensor that it is called on.
                twin = param.detach().clone()
                twin = Parameter(twin, requires_grad=param.requires_grad) if isinstance(param, Parameter) else twin
                swapped_in(twin, value, self.slots.assign)
        except Exception as error:  # PyTorch reports any exception in this way
            raise MisfitError(failed(key, param.size(), value.size(), error, "swapping")) from error
        return value

    def act(self) -> Sequence[str]:
        going = [index for index in range(len(self.slots.keys)) if index not in self.fit.failed]
        restore = keep(self.slots.current[index] for index in going)
        swapped: list[tuple[Any, Any]] = []
        try:
            for index in going:
                self._swap(index, swapped)
            if self.rules.together is not None:
                self.rules.together.agree()
        except BaseException:
            for pair in reversed(swapped):
                torch.utils.swap_tensors(*pair)  # type: ignore[no-untyped-call]
            restore()
            raise
        return ()

    def _swap(self, index: int, swapped: list[tuple[Any, Any]]) -> None:
        key, param, value = self.slots.keys[index], self.slots.current[index], self.values[index]
        try:
            with torch.no_grad():
                new = swapped_in(param, value, self.slots.assign)
                torch.utils.swap_tensors(param, new)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise LoadError(failed(key, param.size(), value.size(), error, "swapping")) from error
        swapped.append((param, new))
