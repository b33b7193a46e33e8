"""Optimizer states: how to recognise one, and the names of its parameters, if it has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from statedict.state import StateDict

from ._facts import Fact

# An optimizer's tensors are `state.INDEX.KEY`; its other entry, `param_groups`, lists the indices.
STATE, GROUPS = "state.", "param_groups"


def is_optimizer(values: Iterable[Fact]) -> bool:
    """Whether a state dict is an optimizer's, from the facts about its entries that are not tensors."""
    return any(str(fact["path"]).startswith(GROUPS) for fact in values)


def noun(tensors: Iterable[Fact], values: Iterable[Fact]) -> str:
    """Return what to call the elements of a state dict: parameters, unless it is of an optimizer or a random generator."""
    has_floats = any("float" in fact["dtype"] or "complex" in fact["dtype"] for fact in tensors)
    return "parameter" if has_floats and not is_optimizer(values) else "element"


def parameter_labels(state: StateDict) -> dict[str, str]:
    """Return names with parameter names in the place of indices, for the tensors of an optimizer that has both.

    Empty for all other states, and if two tensors would get the same name.

    >>> groups = [{"params": [0, 1], "param_names": ["weight", "bias"]}]
    >>> parameter_labels(StateDict({"state.0.exp_avg": np.ones(2), "state.1.step": np.ones(()), "param_groups": groups}))
    {'state.0.exp_avg': 'state.weight.exp_avg', 'state.1.step': 'state.bias.step'}
    """
    known = _by_index(state[GROUPS]) if GROUPS in state and state.leaf(GROUPS) is None else {}
    labels = {}
    for name in state if known else ():
        index, dot, key = name.removeprefix(STATE).partition(".")
        if name.startswith(STATE) and dot and index in known:
            labels[name] = f"{STATE}{known[index]}.{key}"
    shown = [labels.get(name, name) for name in state] if labels else []
    return labels if len(set(shown)) == len(shown) else {}


def _by_index(groups: Any) -> dict[str, str]:
    """Return the parameters' names by index, as text. What the file holds may be of any type."""
    found: dict[str, str] = {}
    for group in groups if isinstance(groups, Sequence) and not isinstance(groups, str) else ():
        if isinstance(group, Mapping):
            indices, names = group.get("params"), group.get("param_names")
            if isinstance(indices, Sequence) and isinstance(names, Sequence) and len(indices) == len(names):
                pairs = ((i, name) for i, name in zip(indices, names) if type(i) is int and isinstance(name, str))
                found |= {str(index): name for index, name in pairs}
    return found
