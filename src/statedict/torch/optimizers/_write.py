"""Saved state into an optimizer: matched by name, all or nothing; the partner of `read_optimizer`.

In goes an optimizer and a saved state, whose tensors may be unread; out comes an Outcome. The rule guarded: when it raises,
the optimizer is as it was, and can go on; when it returns, the optimizer shares no memory with the source. PyTorch's own
loader leaves an optimizer without its options when the state was another class's, shares tensors with the source, casts
what any class keeps to the parameters' dtype, and trusts positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from statedict.errors import LoadError
from statedict.state import collector_paused, leaf_of, library_of, map_tree, raw_values
from statedict.tree import Outcome

from ..snapshots._copy_tree import independent, values_of
from ..tensors._library import TORCH
from ._exact import Group, packed, parameter_numbers
from ._judge import Judge, demand
from ._match import Match, match
from ._place import Place, Wanted, casts, floating, place, placed
from ._read import overridden, slots
from ._rules import MANNERS, known, needed
from ._saved import is_state, parse
from ._undo import unchanged_on_error


def write_optimizer(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    model: torch.nn.Module | None = None,
    strict: bool = True,
    dtype: Wanted = None,
    verify: bool = True,
    judge: Judge | None = None,
) -> Outcome:
    """Load `state` (of `read_optimizer`, `Optimizer.state_dict()` or a file) into the optimizer.

    State goes to the parameter of the same name, where the saved state has `param_names` and names are known here: of
    `model`, else of the optimizer itself. A parameter's group takes the options that the parameter was saved with.
    Where names are not known on both sides, positions decide, and groups must be as many and as large. Names that only
    one side has are errors, unless `strict` is false: then those parameters keep the state that they have.

    Tensors are copied to their parameters' devices, in the dtypes that the optimizer's own state would have: for
    PyTorch's classes that of the parameter, which most need to go on; for other classes those of the state that is there,
    else those that were saved (a class may keep its state in 8 bits, or in float32). Every cast is in the Outcome.
    `dtype` (of torch, or its name, or `"parameter"`) casts floating-point tensors of any class. Step counts and other
    numbers keep their dtype. Tensors that lie in a file are read once everything else is decided; `verify=False` skips
    their checksums. Arrays of other libraries, as an optimizer of `statedict.nn` has them, become tensors.

    `judge` is called with the Outcome when everything is known and nothing has changed; it raises, or returns to let
    happen what fits. Without one, LoadError (a RuntimeError) is raised for whatever is wrong. Whatever raises, also in
    hooks (which run as in PyTorch) or in a class's own loader, the optimizer is put back.

    >>> one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    >>> write_optimizer(torch.optim.SGD([other], lr=0.1), torch.optim.SGD([one], lr=0.5).state_dict()).errors
    []
    """
    wanted = floating(dtype)
    with collector_paused(), unchanged_on_error(optimizer, tensors=_writable_by_others(optimizer)):
        saved = parse(_after_hooks(optimizer, _with_leaves(optimizer, state), verify))
        found = match(optimizer, slots(optimizer, model), saved, strict=strict)
        groups = [_group(group, new) for group, new in zip(optimizer.param_groups, found.options)]
        places = [place(optimizer, slot, groups[slot.group], wanted) for slot, _ in found.pairs]
        for there, (_, entry) in zip(places, found.pairs):
            found.outcome.casts += casts(entry.state, there)
        (judge or demand(type(optimizer).__name__))(found.outcome)
        _write(optimizer, groups, found, places, saved.others, verify)
    return found.outcome


# before


def _with_leaves(optimizer: torch.optim.Optimizer, state: Any) -> Any:
    """The state with other libraries' arrays as leaves over their memory, where the optimizer's class has tensors.

    What a class that is not PyTorch's keeps in NumPy arrays stays in them.
    """
    if not is_state(state) or not known(optimizer):
        return state
    values = raw_values(state)
    return {**values, "state": map_tree(values["state"], _leaf)}


def _leaf(value: Any) -> Any:
    if library_of(value) in (None, TORCH):
        return value
    leaf = leaf_of(value)
    # Objects or text will be refused for what they are.
    return value if leaf is None else leaf


def _hooks(optimizer: torch.optim.Optimizer, when: Literal["pre", "post"]) -> list[Callable[..., Any]]:
    """Hooks that are run here; a class with a loader of its own runs them there."""
    if overridden(optimizer, "load_state_dict"):
        return []
    return list(getattr(optimizer, f"_optimizer_load_state_dict_{when}_hooks", {}).values())


def _writable_by_others(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The tensors that code which is not ours could write into; nothing where no such code will run."""
    if not (_hooks(optimizer, "pre") or _hooks(optimizer, "post") or overridden(optimizer, "load_state_dict")):
        return []
    options = [value for group in optimizer.param_groups for key, value in group.items() if key != "params"]
    return [value for value in values_of([*optimizer.state.values(), options]) if isinstance(value, torch.Tensor)]


def _after_hooks(optimizer: torch.optim.Optimizer, state: Any, verify: bool) -> Any:
    """The state as the hooks want it loaded."""
    hooks = _hooks(optimizer, "pre")
    if not hooks or not is_state(state):
        return state
    # A hook may write into what it is given, and expects tensors: it gets a copy that is read.
    source = independent(dict(state), verify=verify)
    for before in hooks:
        replaced = before(optimizer, source)
        source = source if replaced is None else replaced
    return source


def _group(group: Group, saved: Group | None) -> Group:
    """The optimizer's group with the saved options; its parameters and their names stay."""
    if saved is None:
        return dict(group)
    manners: Group = {key: group[key] for key in group if key in MANNERS and key not in saved}
    own: Group = {key: group[key] for key in ("params", "param_names") if key in group}
    return {**saved, **manners, **own}


# writing


def _write(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    found: Match,
    places: Sequence[Place],
    others: Mapping[Any, Any],
    verify: bool,
) -> None:
    needed_before = [needed(optimizer, number) for number in range(len(groups))]
    options = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    source = {"pairs": [entry.state for _, entry in found.pairs], "options": options, "others": dict(others)}
    fresh = independent(source, verify=verify)
    loaded = {id(there.slot.parameter) for there in places}
    state: defaultdict[Any, Any] = defaultdict(dict)
    state.update((p, v) for p, v in optimizer.state.items() if isinstance(p, torch.Tensor) and id(p) not in loaded)
    for there, value in zip(places, fresh["pairs"]):
        if value is not None:
            state[there.slot.parameter] = placed(value, there)
    state.update(fresh["others"])
    param_groups = [
        {**_with_devices(new, group), "params": group["params"]}
        for new, group in zip(fresh["options"], optimizer.param_groups)
    ]
    if overridden(optimizer, "load_state_dict"):
        numbers = parameter_numbers(optimizer.param_groups)
        numbered = {numbers[id(k)] if isinstance(k, torch.Tensor) else k: v for k, v in state.items()}
        optimizer.load_state_dict({"state": numbered, "param_groups": [packed(g, numbers) for g in param_groups]})
    else:
        optimizer.__setstate__({"state": state, "param_groups": param_groups})
    _check_options(optimizer, needed_before)
    for after in _hooks(optimizer, "post"):
        after(optimizer)


def _with_devices(options: Group, group: Group) -> Group:
    """Options that are tensors (a learning rate that a graph has captured) on the device of the present ones."""
    for key, value in options.items():
        present = group.get(key)
        if isinstance(value, torch.Tensor) and isinstance(present, torch.Tensor):
            options[key] = value.to(present.device)
    return options


def _check_options(optimizer: torch.optim.Optimizer, before: Sequence[Sequence[str]]) -> None:
    """A class whose own `__setstate__` was to fill in options may not have done so."""
    for number, (group, keys) in enumerate(zip(optimizer.param_groups, before)):
        missing = [key for key in keys if key not in group]
        if missing:
            raise LoadError(
                f"group {number} of the saved state has no {', '.join(map(repr, missing))}, "
                f"which {type(optimizer).__name__} needs"
            )
