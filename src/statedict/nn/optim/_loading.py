"""Load an optimizer's state: everything is decided, or refused, before anything is changed."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from statedict.errors import LoadError
from statedict.state import Compound, Leaf

from .._filling import as_own
from .._parameter import Parameter
from .._variable import is_array, raw

Group = dict[str, Any]


def loaded(
    groups: Sequence[Group], state_dict: Mapping[str, Any], needed: Sequence[str]
) -> tuple[list[Group], dict[Any, dict[str, Any]]]:
    """Return the optimizer's new groups and state: settings from the state dict, parameters from `groups`.

    `needed` are the names that each parameter's state must have. Raises ValueError or LoadError.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        found = ", ".join(map(repr, list(state_dict)[:5])) if isinstance(state_dict, Mapping) else type(state_dict)
        raise LoadError(f"not an optimizer's state dict: expected 'state' and 'param_groups', found {found}")
    saved = state_dict["param_groups"]
    if len(saved) != len(groups):
        raise ValueError("loaded state dict has a different number of parameter groups")
    if any(len(theirs["params"]) != len(ours["params"]) for theirs, ours in zip(saved, groups)):
        raise ValueError(
            "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
        )
    owners = {number: p for theirs, ours in zip(saved, groups) for number, p in zip(*_matched(theirs, ours))}
    state = {}
    for number, values in state_dict["state"].items():
        owner = owners.get(number)
        state[number if owner is None else owner] = values if owner is None else _own(number, owner, values, needed)
    return [_merged(theirs, ours) for theirs, ours in zip(saved, groups)], state


def _matched(theirs: Mapping[str, Any], ours: Group) -> tuple[list[Any], list[Parameter]]:
    """Return the numbers in the state dict and the parameters that they belong to."""
    names, own = theirs.get("param_names"), ours.get("param_names")
    if not names or not own or sorted(names) != sorted(own):
        return theirs["params"], ours["params"]
    by_name = dict(zip(own, ours["params"]))
    return theirs["params"], [by_name[name] for name in names]


def _merged(theirs: Mapping[str, Any], ours: Group) -> Group:
    group = {name: copy.deepcopy(value) for name, value in theirs.items() if name != "params"}
    group["params"] = ours["params"]
    if "param_names" in ours:
        group["param_names"] = ours["param_names"]
    return group


def _own(number: Any, parameter: Parameter, values: Mapping[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    missing = [name for name in needed if name not in values]
    if missing and values:
        raise LoadError(
            f"the state of parameter {number} lacks {', '.join(map(repr, missing))}: it has "
            f"{', '.join(map(repr, values))}; it was saved by another class of optimizer"
        )
    own = {}
    for name, value in values.items():
        value = raw(value)
        if not isinstance(value, (Leaf, Compound)) and not is_array(value):
            own[name] = copy.deepcopy(value)
            continue
        array = as_own(parameter.data, value)
        if tuple(array.shape) not in ((), parameter.shape):
            raise LoadError(
                f"the state {name!r} of parameter {number} has shape {list(array.shape)}, but the parameter has "
                f"{list(parameter.shape)}; the parameters may be in a different order"
            )
        own[name] = array
    return own
