"""The arrays of a tree: made of its leaves, put on devices, copied."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from statedict.state import (
    ArrayLibrary,
    Compound,
    Leaf,
    Maker,
    Opaque,
    StateDict,
    every,
    holds,
    independent,
    library,
    library_of,
    many,
    map_tree,
    maker_of,
    materialize,
    raw_values,
    tensors_of,
)


def materialized(tree: Any, chosen: ArrayLibrary | None = None, *, verify: bool = True) -> Any:
    """The tree with its leaves read and its inert values revived (see `revived`).

    A tree that has neither is given back itself.
    """
    chosen = chosen or library()
    return revived(tree, chosen.name, lambda leaves: materialize(leaves, chosen, verify=verify))


def revived_within(tree: Any, backend: str) -> Any:
    """The same, but that leaves stay unread where they are not part of another value."""
    from statedict.formats import TypedStorage

    others = [value for value in every(tree) if isinstance(value, (Opaque, TypedStorage))]
    return revived(tree, backend, lambda leaves: materialize(leaves, library(backend)), others)


def revived(tree: Any, backend: str, read: Callable[[list[Any]], list[Any]], among: Any = None) -> Any:
    """The tree with everything that stands for a value as that value: arrays of leaves, which `read` makes, storages,
    PyTorch's constants, and instances of the classes that may be made. A tree that has none of these is given back itself.

    Values of any other class stay Opaque. `among`: the values whose leaves are read, if these are not all.
    """
    from statedict.formats import TypedStorage

    leaves, storages, attributes = _unread(tree if among is None else among, TypedStorage)
    arrays = read([*leaves, *(storage.leaf() for storage in storages)])
    replace, remake, storage_of, finish = _revival(backend)
    known = dict(zip(map(id, leaves), arrays))
    known |= {id(storage): storage_of(array, storage) for storage, array in zip(storages, arrays[len(leaves) :])}
    changed = bool(known)

    def replaced(value: Any) -> Any:
        nonlocal changed
        new = replace(value)
        changed |= new is not value
        return new

    def remade(value: Opaque) -> Maker | None:
        nonlocal changed
        maker = remake(value)
        changed |= maker is not None
        return maker

    new, finished = map_tree((tree, list(attributes.values())), replaced, known, remade)
    for number, values in zip(attributes, finished):
        finish(known[number], values)
    return new if changed else tree


def _unread(tree: Any, storage: type) -> tuple[list[Any], list[Any], dict[int, Any]]:
    """The leaves and the bare storages of a tree, and the Python attributes that were saved with tensors, by their ids."""
    leaves: list[Any] = []
    storages: list[Any] = []
    attributes: dict[int, Any] = {}
    found = tensors_of(tree, storage)
    while found:
        new = [value for value in found if isinstance(value, (Leaf, Compound))]
        leaves += new
        storages += [value for value in found if isinstance(value, storage)]
        # Leaves in rows have no attributes.
        more = {} if many(new) else {id(leaf): dict(leaf.traits.attributes) for leaf in new if leaf.traits.attributes}
        attributes |= more
        known = {*map(id, leaves), *map(id, storages)} if more else set()
        found = [value for value in tensors_of(list(more.values()), storage) if id(value) not in known]
    return leaves, storages, attributes


def inert(state: StateDict) -> dict[str, str]:
    """The entries of a state that hold values of classes that are not known here: the path of the first, by name."""
    found = {}
    for name, value in _others(state).items():
        path = next((each.path for each in every(value) if isinstance(each, Opaque)), None)
        if path is not None:
            found[name] = path
    return found


def arrays_within(state: StateDict, chosen: ArrayLibrary, *, verify: bool) -> StateDict:
    """The state with the leaves that lie inside other values read: the extra state of modules, which takes arrays.

    Leaves that are values themselves stay unread.
    """
    others = {name: materialized(value, chosen, verify=verify) for name, value in _others(state).items()}
    return state | others if others else state


def _others(state: StateDict) -> dict[str, Any]:
    """The entries of a state that are not tensors."""
    values = raw_values(state)
    # One value of each type decides: asking 32,000 tensors would cost more than planning them.
    if {Leaf}.issuperset(map(type, values.values())):
        return {}
    others = {
        kind for kind, value in {type(value): value for value in values.values()}.items() if not _is_tensor(value)
    }
    return {name: value for name, value in values.items() if type(value) in others} if others else {}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Leaf, Compound)) or library_of(value) is not None


class _Revival(NamedTuple):
    """How inert values of a file become a library's.

    Attributes:
        replace: is given what is not a container.
        remake: how the value that an Opaque describes is made.
        storage: the storage of an array that shows all of it.
        finish: gives a tensor its Python attributes.
    """

    replace: Callable[[Any], Any]
    remake: Callable[[Opaque], Maker | None]
    storage: Callable[[Any, Any], Any]
    finish: Callable[[Any, Any], None]


def _revival(backend: str) -> _Revival:
    if backend != "torch":
        return _Revival(lambda value: value, maker_of, lambda array, storage: array, lambda array, attributes: None)
    from statedict import torch

    return _Revival(torch.revived, torch.maker, torch.storage_shown, torch.set_attributes)


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
