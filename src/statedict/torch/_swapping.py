"""Swapping all or nothing (`torch.__future__.set_swap_module_params_on_conversion`): tensors exchange what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from statedict.errors import LoadError
from statedict.tree import Fit, Rules, Slots

from ._checking import MisfitError, checked, read_now
from ._exact import swapped_in
from ._pairs import failed
from ._ties import contradictions


class Swapping:
    """The slots whose tensors exchange their contents with new ones. `fit.act` swaps them, or raises and swaps back."""

    def __init__(self, slots: Slots, rules: Rules) -> None:
        self.slots = slots
        self.rules = rules
        self.fit = Fit(self.act)
        self.new: list[Any] = [None] * len(slots.keys)
        values: list[Any] = list(slots.values)
        problems: dict[int, str] = {}
        for index in range(len(slots.keys)):
            try:
                values[index] = self._decide(index)
            except MisfitError as misfit:
                problems[index] = str(misfit)
        problems = contradictions(slots, values, list(map(id, slots.current)), verify=rules.verify) | problems
        self.fit.errors += [problems[index] for index in sorted(problems)]
        self.fit.failed |= problems.keys()

    def _decide(self, index: int) -> Any:
        key, param = self.slots.keys[index], self.slots.current[index]
        value = read_now(checked(key, param, self.slots.values[index]), verify=self.rules.verify)
        try:
            with torch.no_grad():
                self.new[index] = swapped_in(param, value, self.slots.assign)
        except Exception as error:  # whatever it is, it is what PyTorch would have said
            raise MisfitError(failed(key, param.size(), value.size(), error, "swapping")) from error
        return value

    def act(self) -> Sequence[str]:
        swapped: list[tuple[Any, Any]] = []
        for index, (key, param, new) in enumerate(zip(self.slots.keys, self.slots.current, self.new)):
            if index in self.fit.failed:
                continue
            try:
                torch.utils.swap_tensors(param, new)  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                for pair in reversed(swapped):
                    torch.utils.swap_tensors(*pair)  # type: ignore[no-untyped-call]
                raise LoadError(failed(key, param.size(), new.size(), error, "swapping")) from error
            swapped.append((param, new))
        return ()
