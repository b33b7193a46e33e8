"""The copy of a state that an asynchronous save writes, while training changes the state itself."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

from statedict import _arrays

from . import _names, _save

# What the objects of a save were copied to, by name.
Memory = dict[str, _arrays.Copy]


def copied(content: _save.Content, memory: Memory) -> tuple[_save.Content, Memory]:
    """What a save writes as a copy that training may leave behind, in the memory of an earlier one; and that memory.

    Raises SaveError, naming the object, for what cannot be copied.
    """
    # The random state was made for this save: nobody else has it, and copying 625 numbers of Python's takes 5 ms.
    live = {name: state for name, state in content.states.items() if name != _names.RANDOM}
    copies = {}
    for name, state in live.items():
        with _save.named(name, state):
            copies[name] = _arrays.copied_again(state, memory.get(name, _arrays.Copy(None)))
    states = {**content.states, **{name: copy.tree for name, copy in copies.items()}}
    return replace(content, values=deepcopy(content.values), states=states), copies
