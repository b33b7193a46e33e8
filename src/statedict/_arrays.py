"""The arrays of a tree: made of its leaves, put on devices, copied."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from statedict.state import (
    ArrayLibrary,
    Compound,
    Leaf,
    StateDict,
    holds,
    independent,
    library,
    library_of,
    map_tree,
    materialize,
    raw_values,
    tensors_of,
)


def materialized(tree: Any, chosen: ArrayLibrary | None = None, *, verify: bool = True) -> Any:
    """The tree with its leaves read, and inert values of PyTorch's as PyTorch's where it is torch that reads them.

    A tree that has none of these is given back itself.
    """
    chosen = chosen or library()
    leaves = [value for value in tensors_of(tree) if isinstance(value, (Leaf, Compound))]
    made = {id(leaf): array for leaf, array in zip(leaves, materialize(leaves, chosen, verify=verify))}
    revived = reviver(chosen.name)
    changed = False

    def replaced(value: Any) -> Any:
        nonlocal changed
        new = made[id(value)] if id(value) in made else revived(value)
        changed |= new is not value
        return new

    new = map_tree(tree, replaced)
    return new if changed else tree


def arrays_within(state: StateDict, chosen: ArrayLibrary, *, verify: bool) -> StateDict:
    """The state with the leaves that lie inside other values read: the extra state of modules, which takes arrays.

    Leaves that are values themselves stay unread.
    """
    values = raw_values(state)
    # One value of each type decides: asking 32,000 tensors would cost more than planning them.
    if {Leaf}.issuperset(map(type, values.values())):
        return state
    others = [
        kind for kind, value in {type(value): value for value in values.values()}.items() if not _is_tensor(value)
    ]
    if not others:
        return state
    inside = {name: value for name, value in values.items() if type(value) in others}
    return state | {name: materialized(value, chosen, verify=verify) for name, value in inside.items()}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Leaf, Compound)) or library_of(value) is not None


def reviver(backend: str) -> Callable[[Any], Any]:
    """A function from inert values of a file (dtypes, devices, sizes) to PyTorch's, where `backend` is that."""
    if backend != "torch":
        return lambda value: value
    from statedict.torch import revived

    return revived


def placed(state: StateDict, devices: Mapping[str, Any], *, verify: bool) -> StateDict:
    """The state with the tensors of these names on their devices, as torch's; unread leaves are read.

    What is tied and goes to one device stays tied.
    """
    from statedict.torch import materialize_on

    moved: dict[str, Any] = {}
    for device in dict.fromkeys(devices.values()):
        leaves = {name: leaf for name, leaf in state.leaves() if devices.get(name) == device}
        moved |= zip(leaves, materialize_on(list(leaves.values()), device, verify=verify))
    return state | moved


def copied(tree: Any, out: Any = None) -> Any:
    """A copy of a tree that shares no memory with it, in the memory of `out` where that fits."""
    if holds_torch(tree):
        from statedict.torch import snapshot

        return snapshot(tree, out)
    return independent(tree, out)


class Copy(NamedTuple):
    """A copy of a tree, and what its library knows of the memory that it is in."""

    tree: Any
    memory: Any = None


def copied_again(tree: Any, before: Copy) -> Copy:
    """As `copied`, in the memory of a copy taken `before`, which nobody but the caller has."""
    if not holds_torch(tree):
        return Copy(independent(tree, before.tree))
    from statedict.torch import take

    return Copy(*take(tree, before.tree, before.memory))


def holds_torch(tree: Any) -> bool:
    """Whether any tensor of a tree is torch's."""
    return bool(sys.modules.get("torch")) and holds(
        tree, lambda value: getattr(library_of(value), "name", None) == "torch"
    )
