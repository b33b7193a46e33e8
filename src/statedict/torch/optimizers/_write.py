"""Load saved state into an optimizer, matched by name, all or nothing. Partner of `read_optimizer`.

If it raises, the optimizer is unchanged and usable; if it returns, the optimizer does not share memory with the source.
(PyTorch's own loader leaves an optimizer without its options if the state is of another class, shares tensors with the
source, casts the state of any class to the parameters' dtype, and matches by position.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from statedict.errors import LoadError
from statedict.state import collector_paused, leaf_of, library_of, map_tree, one_of_each_type, raw_values
from statedict.tree import SOUND, Judge, Outcome, Rules, lossy, refuse

from ..snapshots._copy_tree import independent, values_of
from ..tensors._library import TORCH
from ._casts import cast_all
from ._exact import Group, packed, parameter_numbers
from ._fit import IMPLEMENTATION, known, needed
from ._match import Match, is_state, match, parse
from ._place import StatePlacement, Wanted, floating, place_all, placed
from ._read import overridden, slots
from ._rollback import unchanged_on_error
from ._sharded_state import ShardedState


def write_optimizer(
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    *,
    model: torch.nn.Module | None = None,
    strict: bool = True,
    dtype: Wanted = None,
    rules: Rules = SOUND,
    judge: Judge | None = None,
) -> Outcome:
    """Load `state` (from `read_optimizer`, `Optimizer.state_dict()` or a file) into the optimizer.

    State is loaded into the parameter of the same name if the saved state has `param_names` and names are known here: from
    `model`, or from the optimizer itself. A parameter's group gets the options that the parameter was saved with. If names
    are not known on both sides, positions decide, and the groups must have the same number and sizes. Names on one side only
    are errors, unless `strict` is false: then those parameters keep their current state.

    Tensors are copied to their parameters' devices, in the dtypes of the optimizer's own state: for PyTorch's classes, the
    parameter's dtype, which most of them need; for other classes, the dtypes of the current state, or else the saved ones (a
    class may use 8 bits, or float32). Every cast is listed in the Outcome; one that makes a finite element infinite is an
    error, unless the rules allow `"overflow"`. `dtype` (a torch dtype, its name, or `"parameter"`) casts the floating-point
    tensors of any class. Step counts and other numbers keep their dtype. Tensors in a file are read after everything else
    is decided, unless their elements decide; `rules.verify` says whether their checksums are verified. Arrays of other
    libraries, such as those of an optimizer of `statedict.nn`, become tensors.

    `judge` is called with the Outcome when everything is known and nothing has changed; it raises, or returns to load what
    fits. Without a judge, LoadError (a RuntimeError) is raised for any error. If anything raises, including hooks (which
    run as in PyTorch) and a class's own loader, the optimizer is restored.

    The state of a sharded parameter (a DTensor) is sharded like it, and each rank reads its own elements; state of another
    shape is replicated. `rules.together`: the joint load of all ranks, which agree when everything is loaded.

    >>> one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    >>> write_optimizer(torch.optim.SGD([other], lr=0.1), torch.optim.SGD([one], lr=0.5).state_dict()).errors
    []
    """
    wanted = floating(dtype)
    with collector_paused(), unchanged_on_error(optimizer, tensors=_writable_by_others(optimizer)):
        saved = parse(_after_hooks(optimizer, _with_leaves(optimizer, state), rules.verify))
        found = match(optimizer, slots(optimizer, model), saved, strict=strict)
        groups = [_group(group, new) for group, new in zip(optimizer.param_groups, found.options)]
        places = place_all(optimizer, found, groups, wanted)
        sharded = ShardedState(optimizer, found.pairs, places, rules)
        found.outcome.errors += sharded.errors
        _judge_casts(found, sharded, places, rules)
        (judge or refuse(type(optimizer).__name__))(found.outcome)
        placed_at = [(slot.parameter, place) for (slot, _), place in zip(found.pairs, places)]
        _write(optimizer, groups, sharded, placed_at, saved.others, rules.verify)
        if rules.together is not None:
            rules.together.agree()
    return found.outcome


# preparation


def _with_leaves(optimizer: torch.optim.Optimizer, state: Any) -> Any:
    """Replace arrays of other libraries by leaves over their memory, if the optimizer's class uses tensors.

    NumPy arrays in the state of a class other than PyTorch's stay as they are.
    """
    if not is_state(state) or not known(optimizer):
        return state
    values = raw_values(state)
    if not any(map(_is_foreign, one_of_each_type(values["state"]))):
        return state
    return {**values, "state": map_tree(values["state"], _leaf)}


def _is_foreign(value: Any) -> bool:
    return library_of(value) not in (None, TORCH)


def _leaf(value: Any) -> Any:
    if not _is_foreign(value):
        return value
    leaf = leaf_of(value)
    # Object and string arrays are refused later.
    return value if leaf is None else leaf


def _hooks(optimizer: torch.optim.Optimizer, when: Literal["pre", "post"]) -> list[Callable[..., Any]]:
    """The hooks to run here. An overridden `load_state_dict` runs them itself."""
    if overridden(optimizer, "load_state_dict"):
        return []
    return list(getattr(optimizer, f"_optimizer_load_state_dict_{when}_hooks", {}).values())


def _writable_by_others(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The tensors that foreign code could write into; empty if no foreign code runs."""
    if not (_hooks(optimizer, "pre") or _hooks(optimizer, "post") or overridden(optimizer, "load_state_dict")):
        return []
    options = [value for group in optimizer.param_groups for key, value in group.items() if key != "params"]
    return [value for value in values_of([*optimizer.state.values(), options]) if isinstance(value, torch.Tensor)]


def _after_hooks(optimizer: torch.optim.Optimizer, state: Any, verify: bool) -> Any:
    """The state as the pre-hooks return it."""
    hooks = _hooks(optimizer, "pre")
    if not hooks or not is_state(state):
        return state
    # A hook may modify its argument and expects tensors, so it gets a copy with all tensors read.
    source = independent(dict(state), verify=verify)
    for before in hooks:
        replaced = before(optimizer, source)
        source = source if replaced is None else replaced
    return source


def _group(group: Group, saved: Group | None) -> Group:
    """The optimizer's group with the saved options; its parameters and their names stay."""
    if saved is None:
        return dict(group)
    kept: Group = {key: group[key] for key in group if key in IMPLEMENTATION and key not in saved}
    own: Group = {key: group[key] for key in ("params", "param_names") if key in group}
    return {**saved, **kept, **own}


def _judge_casts(found: Match, sharded: ShardedState, places: Sequence[StatePlacement], rules: Rules) -> None:
    """Add the casts to the outcome, and an error for each that the rules refuse."""
    outcome, labels = found.outcome, [slot.label for slot, _ in found.pairs]
    unfit = set()
    for label, cast in cast_all(labels, sharded.states, places, verify=rules.verify):
        outcome.casts.append(cast)
        if cast.kind in rules.refused:
            outcome.errors.append(lossy(cast))
            unfit.add(label)
    outcome.casts += sharded.casts
    if unfit:
        outcome.loaded = [name for name in outcome.loaded if name not in unfit]


# writing


def _write(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    sharded: ShardedState,
    places: Sequence[tuple[torch.Tensor, StatePlacement]],
    others: Mapping[Any, Any],
    verify: bool,
) -> None:
    needed_before = [needed(optimizer, number) for number in range(len(groups))]
    options = [{key: value for key, value in group.items() if key != "params"} for group in groups]
    # In one list, because copying a dict for each parameter takes three times as long.
    values = [v for state in sharded.states for v in (state.values() if type(state) is dict else (state,))]
    fresh = independent({"values": values, "options": options, "others": dict(others)}, verify=verify)
    sharded.fill()
    loaded = {id(parameter) for parameter, _ in places}
    state: defaultdict[Any, Any] = defaultdict(dict)
    state.update((p, v) for p, v in optimizer.state.items() if isinstance(p, torch.Tensor) and id(p) not in loaded)
    values = iter(fresh["values"])
    for (parameter, there), old in zip(places, sharded.states):
        new = dict(zip(old, values)) if type(old) is dict else next(values)
        if new is not None:
            state[parameter] = placed(new, there)
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
    """Move options that are tensors (a learning rate captured by a CUDA graph) to the device of the current ones."""
    for key, value in options.items():
        present = group.get(key)
        if isinstance(value, torch.Tensor) and isinstance(present, torch.Tensor):
            options[key] = value.to(present.device)
    return options


def _check_options(optimizer: torch.optim.Optimizer, before: Sequence[Sequence[str]]) -> None:
    """Raise LoadError if a class's own `__setstate__` did not fill in an option that the group needs."""
    for number, (group, keys) in enumerate(zip(optimizer.param_groups, before)):
        missing = [key for key in keys if key not in group]
        if missing:
            raise LoadError(
                f"group {number} of the saved state lacks {', '.join(map(repr, missing))}, "
                f"which {type(optimizer).__name__} needs"
            )
