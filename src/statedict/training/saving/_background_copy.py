"""The copy of the state that an asynchronous save writes while training changes the original."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

from statedict import _arrays

from .. import _names
from . import _save, _together
from ._together import RankParts


@dataclass(frozen=True, slots=True)
class CopyMemory:
    """The copies of a save, whose memory the next save reuses.

    Attributes:
        copies: object name → its copy.
        parts: what this rank writes of them, if several save.
    """

    copies: Mapping[str, _arrays.Copy] = field(default_factory=dict)
    parts: RankParts = field(default_factory=RankParts)


def copied(content: _save.Content, memory: CopyMemory) -> tuple[_save.Content, CopyMemory]:
    """Copy the content of a save, into the memory of an earlier copy; return the copy and its memory.

    Raises SaveError, naming the object, if a value cannot be copied.
    """
    # The random state was created for this save, so it is not shared with training.
    live = {name: state for name, state in content.states.items() if name != _names.RANDOM}
    copies = {}
    for name, state in live.items():
        with _save.named(name, state):
            copies[name] = _arrays.copied_again(state, memory.copies.get(name, _arrays.Copy(None)))
    states = {**content.states, **{name: copy.tree for name, copy in copies.items()}}
    return replace(content, values=deepcopy(content.values), states=states), CopyMemory(copies)


def copied_of_rank(content: _together.RankContent, memory: CopyMemory) -> tuple[_together.RankContent, CopyMemory]:
    """Copy the content of this rank, as `copied` does. If only values have changed, its parts and plan are used again."""
    live = {name: state.tree for name, state in content.states.items()}
    copy, kept = copied(replace(content.own, states={**content.own.states, **live}), memory)
    now = {}
    for name, state in content.states.items():
        before = memory.parts.by_object.get(name)
        has_same_form = kept.copies[name] is memory.copies.get(name)
        now[name] = part = _together.part_of(state, before, has_same_form=has_same_form)
        part.set_values(state, copy.states[name])
    parts = memory.parts if now == memory.parts.by_object else RankParts(now)
    own = replace(copy, states={name: copy.states[name] for name in content.own.states})
    return replace(content, own=own, parts=parts), replace(kept, parts=parts)
