"""The state of an optimizer, with the names of its parameters; `write_optimizer` is the partner.

In goes an optimizer (and the model that it trains); out comes what `Optimizer.state_dict()` gives, with `param_names` in
every group where names can be had, so that stock PyTorch loads it and `write_optimizer` can match by name. The rule
guarded: the dicts and lists are the caller's own, the tensors are the optimizer's.
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

    `names` are those that the model has for it, `own` those that the optimizer was built with; both are empty where no
    name is known.
    """

    parameter: torch.Tensor
    names: tuple[str, ...]
    own: tuple[str, ...]
    group: int
    position: int

    @property
    def name(self) -> str | None:
        """The name to save it under; None where none is known."""
        return next(iter((*self.names, *self.own)), None)

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return self.name or f"parameter {self.position} of group {self.group}"


def read_optimizer(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module | None = None, *, aliased: bool = False
) -> dict[str, Any]:
    """`{"state": {int: …}, "param_groups": [{…, "params": [int, …], "param_names": [str, …]}, …]}`, tensors aliased.

    The names are those of `model`'s parameters, else those that the optimizer was built with (`named_parameters()`); a
    parameter that has none where others do is named by its place, `param_groups.0.params.3`; without any names there
    are no `param_names`. `aliased`: for somebody who copies all of it at once, the dicts may be the optimizer's, too. Hooks
    run as in PyTorch, and a class's own `state_dict` is called. Raises SaveError where the
    optimizer holds state of a tensor that is in none of its groups.

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
    """The optimizer's parameters by group, with every name they are known by."""
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
    """Whether the optimizer's class, or the optimizer itself, has its own `method` in place of `Optimizer`'s."""
    kinds = type(optimizer).__mro__
    own = kinds[: kinds.index(torch.optim.Optimizer)]
    return method in optimizer.__dict__ or any(method in kind.__dict__ for kind in own)


def _number(optimizer: torch.optim.Optimizer, key: Any, numbers: Mapping[int, int]) -> Any:
    if not isinstance(key, torch.Tensor):
        return key
    if id(key) not in numbers:
        raise SaveError(
            f"{type(optimizer).__name__} holds state of a tensor of shape {list(key.shape)} that is in none of its "
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
