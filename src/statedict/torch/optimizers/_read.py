"""Read the state of an optimizer with the names of its parameters. Partner of `write_optimizer`.

The result is what `Optimizer.state_dict()` returns, with `param_names` in every group if names are known, so that stock
PyTorch can load it and `write_optimizer` can match by name. The dicts and lists are new; the tensors are the optimizer's
own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from statedict.errors import SaveError
from statedict.state import map_tree

from ._exact import packed, parameter_numbers


class Slot(NamedTuple):
    """One parameter of an optimizer.

    `names` are its names in the model, `own` those that the optimizer was built with; both are empty if no name is known.
    """

    parameter: torch.Tensor
    names: tuple[str, ...]
    own: tuple[str, ...]
    group: int
    position: int

    @property
    def name(self) -> str | None:
        """The name under which it is saved; None if no name is known."""
        return next(iter((*self.names, *self.own)), None)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.name or f"parameter {self.position} of group {self.group}"


def read_optimizer(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module | None = None, *, aliased: bool = False
) -> dict[str, Any]:
    """Return `{"state": {int: …}, "param_groups": [{…, "params": [int, …], "param_names": [str, …]}, …]}`, tensors aliased.

    The names are those of `model`'s parameters, or those that the optimizer was built with (`named_parameters()`). If only
    some parameters have a name, the others are named by position: `param_groups.0.params.3`. Without any names there is no
    `param_names`. `aliased`: the dicts may be the optimizer's own, because the caller copies everything at once. Hooks run
    as in PyTorch, and an overridden `state_dict` is called. Raises SaveError if the optimizer has state for a tensor that
    is not in any of its groups.

    >>> model = torch.nn.Linear(2, 1)
    >>> read_optimizer(torch.optim.SGD(model.parameters(), lr=0.5), model)["param_groups"][0]["param_names"]
    ['weight', 'bias']
    """
    names = [tuple(slot.name for slot in group if slot.name is not None) for group in slots(optimizer, model)]
    if overridden(optimizer, "state_dict"):
        return _named(_with_own_containers(optimizer.state_dict()), names)
    for before in optimizer._optimizer_state_dict_pre_hooks.values():
        before(optimizer)
    numbers = parameter_numbers(optimizer.param_groups)
    live = {
        "state": {_number(optimizer, key, numbers): value for key, value in optimizer.state.items()},
        "param_groups": [packed(group, numbers) for group in optimizer.param_groups],
    }
    if aliased and not optimizer._optimizer_state_dict_post_hooks:
        return _named(live, names)
    state = _named(_with_own_containers(live), names)
    for after in optimizer._optimizer_state_dict_post_hooks.values():
        replaced = after(optimizer, state)
        state = state if replaced is None else replaced
    return state


def slots(optimizer: torch.optim.Optimizer, model: torch.nn.Module | None) -> list[list[Slot]]:
    """The optimizer's parameters by group, with all their names."""
    known: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False) if model is not None else ():
        known.setdefault(id(parameter), []).append(name)
    own: dict[int, list[str]] = {}
    for group in optimizer.param_groups:
        for parameter, name in zip(group["params"], group.get("param_names", ())):
            own.setdefault(id(parameter), []).append(name)

    def slot(parameter: torch.Tensor, group: int, position: int) -> Slot:
        names, given = known.get(id(parameter), []), own.get(id(parameter), [])
        if (known or own) and not (names or given):
            names = [f"param_groups.{group}.params.{position}"]
        return Slot(parameter, tuple(names), tuple(given), group, position)

    return [
        [slot(parameter, number, position) for position, parameter in enumerate(group["params"])]
        for number, group in enumerate(optimizer.param_groups)
    ]


def overridden(optimizer: torch.optim.Optimizer, method: str) -> bool:
    """Return whether the optimizer, or its class, overrides `method` of `Optimizer`."""
    kinds = type(optimizer).__mro__
    own = kinds[: kinds.index(torch.optim.Optimizer)]
    return method in optimizer.__dict__ or any(method in kind.__dict__ for kind in own)


def _number(optimizer: torch.optim.Optimizer, key: Any, numbers: Mapping[int, int]) -> Any:
    if not isinstance(key, torch.Tensor):
        return key
    if id(key) not in numbers:
        raise SaveError(
            f"{type(optimizer).__name__} has state for a tensor of shape {list(key.shape)} that is not in any of its "
            "param_groups, so it cannot be saved: delete it from optimizer.state, or add the parameter to a group"
        )
    return numbers[id(key)]


def _with_own_containers(state: Any) -> Any:
    return map_tree(state, lambda value: value)


def _named(state: dict[str, Any], names: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    groups = state.get("param_groups", ())
    if any(names) and [len(group.get("params", ())) for group in groups] == [len(some) for some in names]:
        for group, some in zip(groups, names):
            group["param_names"] = list(some)
    return state
