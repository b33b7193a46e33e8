"""Parse the saved state of an optimizer: groups of entries, with names if there are any.

Accepts the result of `Optimizer.state_dict()`, `read_optimizer` or torch.distributed (whose ids are names), with tensors
read or unread. Anything else is refused here, before anything else happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from statedict.errors import LoadError
from statedict.state import raw_values


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
        others: state that belongs to no parameter, by its key.
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
    """Whether the value has the two keys of an optimizer's state."""
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
