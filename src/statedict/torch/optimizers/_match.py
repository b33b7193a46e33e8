"""Parse the saved state of an optimizer, match it to the parameters, and check its options, before anything changes.

Accepts the result of `Optimizer.state_dict()`, `read_optimizer` or torch.distributed (whose ids are names), with tensors
read or unread.

Names decide if both sides have them; otherwise positions do. No state is given to a parameter that it was not saved for or
that it does not fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from statedict.errors import LoadError
from statedict.plan import pair
from statedict.state import Compound, Leaf, library, materialize, raw_values
from statedict.tree import Outcome

from ._fit import order_matters, wrong_options
from ._read import Slot

Options = dict[str, Any]


class SavedEntry(NamedTuple):
    """The saved state of one parameter: its saved id, its name or None, its state or None."""

    id: Hashable
    name: str | None
    state: Any


class SavedGroup(NamedTuple):
    """One group: its options (without `params` and `param_names`) and its parameters' entries."""

    options: dict[str, Any]
    entries: tuple[SavedEntry, ...]


@dataclass(frozen=True, slots=True)
class SavedOptimizer:
    """An optimizer's saved state.

    Attributes:
        groups: the groups, in order.
        others: state that does not belong to a parameter, by its key.
        named: whether every entry has a name and the names are unique.
    """

    groups: tuple[SavedGroup, ...]
    others: dict[Hashable, Any]
    named: bool


def parse(source: Any) -> SavedOptimizer:
    """Parse a saved state; raises LoadError if `source` is not the state of an optimizer."""
    state, groups = _parts(source)
    saved = tuple(_group(group, n, state) for n, group in enumerate(groups))
    entries = {entry.id: entry for group in saved for entry in group.entries}
    names = [entry.name for entry in entries.values() if entry.name is not None]
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise LoadError(
                f"the saved state has {times} parameters with the name {name!r}, so names cannot be matched"
            )
    others = {key: value for key, value in state.items() if key not in entries}
    return SavedOptimizer(saved, others, named=bool(entries) and len(names) == len(entries))


def is_state(value: object) -> bool:
    """Return whether the value has the two keys of an optimizer's state."""
    return isinstance(value, Mapping) and "state" in value and "param_groups" in value


def _parts(source: Any) -> tuple[Mapping[Any, Any], Sequence[Any]]:
    if not is_state(source):
        raise LoadError(f"this is not the state of an optimizer: {_instead(source)}")
    values = raw_values(source)
    state, groups = values["state"], values["param_groups"]
    if not isinstance(state, Mapping) or not isinstance(groups, (list, tuple)):
        raise LoadError(
            "this is not the state of an optimizer: 'state' must be a dict and 'param_groups' a list, "
            f"not {type(state).__name__} and {type(groups).__name__}"
        )
    return state, groups


def _instead(source: Any) -> str:
    expected = "expected a dict with 'state' and 'param_groups'"
    if not isinstance(source, Mapping):
        return f"{expected}, not {type(source).__name__}"
    inside = [key for key, value in raw_values(source).items() if is_state(value)]
    hint = f"; there is one under {' and '.join(map(repr, inside))}" if inside else ""
    shown = ", ".join(repr(key) for key in list(source)[:4]) + (", …" if len(source) > 4 else "")
    return f"{expected}, found the keys {shown or '(none)'}{hint}"


def _group(group: Any, number: int, state: Mapping[Any, Any]) -> SavedGroup:
    ids = group.get("params") if isinstance(group, Mapping) else None
    if not isinstance(ids, (list, tuple)):
        raise LoadError(
            f"this is not the state of an optimizer: group {number} of 'param_groups' must have a list 'params'"
        )
    names = group.get("param_names")
    if names is None:
        # torch.distributed.checkpoint.state_dict saves names instead of numbers.
        names = [key if isinstance(key, str) else None for key in ids]
    elif len(names) != len(ids):
        raise LoadError(f"group {number} of the saved state has {len(ids)} parameters and {len(names)} param_names")
    options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    return SavedGroup(options, tuple(SavedEntry(key, name, state.get(key)) for key, name in zip(ids, names)))


@dataclass(slots=True)
class Match:
    """The plan of loading an optimizer.

    Attributes:
        outcome: what is missing, unexpected or wrong.
        pairs: the parameters to be loaded, each with its entry, in saved order.
        options: for each group the saved options to use, or None if the group keeps its own.
    """

    outcome: Outcome
    pairs: list[tuple[Slot, SavedEntry]] = field(default_factory=list)
    options: list[Options | None] = field(default_factory=list)


def match(
    optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Slot]], saved: SavedOptimizer, *, strict: bool
) -> Match:
    """Plan how to load `saved` into the optimizer with the parameters `groups`; changes nothing."""
    by_name = saved.named and all(slot.name is not None for group in groups for slot in group)
    found = (_by_name if by_name else _by_position)(groups, saved, strict)
    errors = found.outcome.errors
    for number, options in enumerate(found.options):
        problem = wrong_options(optimizer, number, options) if options is not None else None
        if problem:
            errors.append(problem)
            found.options[number] = None
    if order_matters(optimizer):
        errors += _out_of_order(optimizer, groups, found)
    return found


# matching


def _by_name(groups: Sequence[Sequence[Slot]], saved: SavedOptimizer, strict: bool) -> Match:
    found = Match(Outcome(strict))
    entries = {str(entry.name): (entry, n) for n, group in enumerate(saved.groups) for entry in group.entries}
    taken = _named(list(chain.from_iterable(groups)), entries)
    named: dict[int, list[str]] = {}
    for name, slot in taken.items():
        named.setdefault(id(slot.parameter), []).append(name)
    for group in groups:
        sources: dict[int, SavedGroup] = {}
        for slot in group:
            names = named.get(id(slot.parameter), [])
            if not names:
                found.outcome.missing.append(slot.label)
                continue
            if len({entries[name][0].id for name in names}) > 1:
                found.outcome.errors.append(
                    f"{' and '.join(map(repr, names))} are one parameter in the model but have separate states in the saved "
                    "state: delete all but one of them there"
                )
            number = entries[names[0]][1]
            sources[number] = saved.groups[number]
        found.options.append(_agreed(sources, len(found.options), found.outcome.errors))
    found.pairs = [(taken[name], entry) for name, (entry, _) in entries.items() if name in taken]
    found.outcome.unexpected += [name for name in entries if name not in taken]
    if not taken and found.outcome.missing:
        found.outcome.errors.append(
            f"the parameter names differ: the saved state has {found.outcome.unexpected[0]!r}, the optimizer has "
            f"{found.outcome.missing[0]!r}; pass the model that has the saved names as model="
        )
    return found


def _named(slots: Sequence[Slot], saved: Collection[str]) -> dict[str, Slot]:
    """Find the slot of each saved name: by the model's names, then by those that the optimizer was built with.

    As for modules, equal names are matched first, then names that differ only in wrapper prefixes.
    """
    taken: dict[str, Slot] = {}
    for family in (attrgetter("names"), attrgetter("own")):
        filled = {id(slot.parameter) for slot in taken.values()}
        known = {name: slot for slot in slots if id(slot.parameter) not in filled for name in family(slot)}
        taken |= {old: known[new] for old, new in pair([n for n in saved if n not in taken], known).pairs.items()}
    return taken


def _by_position(groups: Sequence[Sequence[Slot]], saved: SavedOptimizer, strict: bool) -> Match:
    found = Match(Outcome(strict))
    sizes, saved_sizes = [len(group) for group in groups], [len(group.entries) for group in saved.groups]
    if len(sizes) != len(saved_sizes):
        found.outcome.errors.append(
            f"loaded state dict has a different number of parameter groups: {len(saved_sizes)}, but the optimizer has"
            f" {len(sizes)}"
        )
    elif sizes != saved_sizes:
        found.outcome.errors.append(
            "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
            + "; ".join(
                f"group {n} has {there} parameters in the saved state and {here} in the optimizer"
                for n, (here, there) in enumerate(zip(sizes, saved_sizes))
                if here != there
            )
        )
    if found.outcome.errors:
        found.outcome.errors[-1] += (
            ". Without the names of its parameters, a saved state fits only an optimizer of the same parameters in the same"
            " order and groups; CheckpointManager, and state_dict(optimizer, model=model), save the names"
        )
        found.options = [None] * len(groups)
        return found
    entries = chain.from_iterable(group.entries for group in saved.groups)
    found.pairs = list(zip(chain.from_iterable(groups), entries))
    found.options = [group.options for group in saved.groups]
    return found


def _agreed(sources: Mapping[int, SavedGroup], number: int, errors: list[str]) -> Options | None:
    """The options of the saved groups of a group's parameters; None, and an error, if they differ."""
    if not sources:
        return None
    (_, first), *others = sources.items()
    for other, group in others:
        differing = [
            key
            for key in {**first.options, **group.options}
            if not _same(first.options.get(key), group.options.get(key))
        ]
        if differing:
            errors.append(
                f"the parameters of group {number} were saved in groups {next(iter(sources))} and {other}, which differ in "
                f"{', '.join(differing)}: use the same groups, or make the saved options equal"
            )
            return None
    return first.options


def _same(one: Any, other: Any) -> bool:
    """Return whether two options are equal. Tensors are compared by their elements, large unread ones by identity."""
    one, other = _read(one), _read(other)
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and bool((one == other).all())
    if isinstance(one, (torch.Tensor, Leaf, Compound)) or isinstance(other, (torch.Tensor, Leaf, Compound)):
        return one is other
    return bool(one == other)


def _read(option: Any) -> Any:
    """Return an option with its elements, if it is an unread tensor of one element: a learning rate."""
    if isinstance(option, Leaf) and option.spec.numel == 1:
        return materialize([option], library("torch"))[0]
    return option


def _out_of_order(optimizer: torch.optim.Optimizer, groups: Sequence[Sequence[Slot]], found: Match) -> list[str]:
    order = [id(slot.parameter) for group in groups for slot in group]
    if found.outcome.errors or [id(slot.parameter) for slot, _ in found.pairs] == order:
        return []
    kind = type(optimizer).__name__
    return [f"{kind} has one state for all parameters: they must be the same parameters, in the saved order"]
