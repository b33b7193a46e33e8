"""`Optimizer.state_dict` and `load_state_dict` exactly as in PyTorch, but in linear time; used by `install()`.

They behave as PyTorch's own methods do, faults included: live aliases, state matched by position, floating-point state cast
to the parameter's dtype. PyTorch searches for a parameter's group once per state tensor; here the groups are walked once.
`read_optimizer` and `write_optimizer` are the sound alternatives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch

Group = dict[str, Any]


def optimizer_state_dict(self: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what `self.state_dict()` returns: `{"state": {int: …}, "param_groups": [{…, "params": [int, …]}, …]}`.

    The integers number the parameters of all groups, in order; a duplicate parameter has one number. The values of `"state"`
    are the optimizer's own objects, not copies. Hooks run as in PyTorch. Like PyTorch, raises KeyError if the optimizer has
    state for a tensor that is not in any of its groups.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer_state_dict(torch.optim.SGD([weight], lr=0.5))["param_groups"][0]["params"]
    [0]
    """
    for before in self._optimizer_state_dict_pre_hooks.values():
        before(self)
    numbers = parameter_numbers(self.param_groups)
    state_dict: dict[str, Any] = {
        "state": {numbers[id(k)] if isinstance(k, torch.Tensor) else k: v for k, v in self.state.items()},
        "param_groups": [packed(group, numbers) for group in self.param_groups],
    }
    for after in self._optimizer_state_dict_post_hooks.values():
        replaced = after(self, state_dict)
        if replaced is not None:
            state_dict = replaced
    return state_dict


def optimizer_load_state_dict(self: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Do what `self.load_state_dict(state_dict)` does: match by position, cast, `__setstate__`, hooks.

    Raises ValueError with PyTorch's text if the number or the sizes of the groups differ.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> optimizer_load_state_dict(optimizer, torch.optim.SGD(model.parameters(), lr=0.5).state_dict())
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """
    state_dict = state_dict.copy()  # type: ignore[attr-defined]
    for before in self._optimizer_load_state_dict_pre_hooks.values():
        replaced = before(self, state_dict)  # type: ignore[arg-type]
        if replaced is not None:
            state_dict = replaced
    groups, saved = self.param_groups, deepcopy(state_dict["param_groups"])
    _check_sizes(groups, saved)
    places = zip(
        chain.from_iterable(group["params"] for group in saved),
        chain.from_iterable(group["params"] for group in groups),
        strict=True,
    )
    self.__setstate__(
        {
            "state": _placed(state_dict["state"], dict(places), _hosting(state_dict["param_groups"])),
            "param_groups": [_updated(group, new) for group, new in zip(groups, saved, strict=True)],
        }
    )
    for after in self._optimizer_load_state_dict_post_hooks.values():
        after(self)


def parameter_numbers(groups: Sequence[Group]) -> dict[int, int]:
    """Map the `id` of each parameter to its number: its position over all groups.

    The number of a duplicate is its last position in the first group that contains it, as in PyTorch.
    """
    numbers: dict[int, int] = {}
    start = 0
    for group in groups:
        here = {id(parameter): number for number, parameter in enumerate(group["params"], start)}
        for identity, number in here.items():
            numbers.setdefault(identity, number)
        start += len(group["params"])
    return numbers


def packed(group: Group, numbers: Mapping[int, int]) -> Group:
    """A group as it is saved: its options, then the numbers of its parameters."""
    options = {key: value for key, value in group.items() if key != "params"}
    return {**options, "params": [numbers[id(parameter)] for parameter in group["params"]]}


def _check_sizes(groups: Sequence[Group], saved: Sequence[Group]) -> None:
    if len(groups) != len(saved):
        raise ValueError("loaded state dict has a different number of parameter groups")
    if any(len(group["params"]) != len(new["params"]) for group, new in zip(groups, saved, strict=True)):
        raise ValueError(
            "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
        )


def _hosting(saved: Sequence[Group]) -> dict[Hashable, bool]:
    """Saved ids whose `step` is placed on the parameter's device: those whose (first) group is capturable or fused."""
    on_device: dict[Hashable, bool] = {}
    for group in saved:
        wanted = bool(group.get("capturable", False) or group.get("fused", False))
        for number in group["params"]:
            on_device.setdefault(number, wanted)
    return on_device


def _placed(
    state: Mapping[Any, Any], places: Mapping[Any, torch.Tensor], hosting: Mapping[Hashable, bool]
) -> defaultdict[Any, Any]:
    placed: defaultdict[Any, Any] = defaultdict(dict)
    for number, value in state.items():
        if number in places:
            parameter = places[number]
            placed[parameter] = _cast(parameter, value, hosting[number], None)
        else:
            placed[number] = value
    return placed


def _cast(parameter: torch.Tensor, value: Any, on_device: bool, key: Hashable) -> Any:
    """Convert a value as PyTorch does: tensors follow the parameter, dicts and iterables are rebuilt."""
    if isinstance(value, torch.Tensor):
        return _cast_tensor(parameter, value, on_device, key)
    if isinstance(value, dict):
        return {inner: _cast(parameter, entry, on_device, inner) for inner, entry in value.items()}
    if isinstance(value, Iterable):
        # As in PyTorch, a str becomes the text of a generator, and a namedtuple raises TypeError.
        return type(value)(_cast(parameter, entry, on_device, None) for entry in value)  # type: ignore[call-arg]
    return value


def _cast_tensor(parameter: torch.Tensor, value: torch.Tensor, on_device: bool, key: Hashable) -> torch.Tensor:
    # Not cast to the parameter's dtype: a step count in bfloat16 stops at 256 (pytorch#74424).
    if key == "step":
        return value.to(dtype=torch.float32, device=parameter.device) if on_device else value
    if parameter.is_floating_point():
        return value.to(dtype=parameter.dtype, device=parameter.device)
    return value.to(device=parameter.device)


def _updated(group: Group, saved: Group) -> Group:
    saved["params"] = group["params"]
    if "param_names" in group and "param_names" not in saved:
        saved["param_names"] = group["param_names"]
    return saved
