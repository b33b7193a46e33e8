"""The arrays of a tree: create them from its leaves, move them to devices, copy them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from statedict.state import (
    ArrayLibrary,
    Compound,
    Leaf,
    Maker,
    Opaque,
    StateDict,
    every,
    independent,
    library,
    library_of,
    maker_of,
    map_tree,
    materialize,
    one_of_each_type,
    rows_of,
    tensors_of,
)


def materialized(tree: Any, chosen: ArrayLibrary | None = None, *, verify: bool = True) -> Any:
    """Read the leaves of a tree and rebuild its Opaque values (see `revived`).

    Returns the tree itself if it has neither.
    """
    chosen = chosen or library()
    return revived(tree, chosen.name, lambda leaves: materialize(leaves, chosen, verify=verify))


def revived_within(tree: Any, backend: str) -> Any:
    """Rebuild the Opaque values of a tree; leaves that are not part of one stay unread."""
    from statedict.formats import TypedStorage

    if {Opaque, TypedStorage, *_revival(backend).kinds}.isdisjoint(map(type, one_of_each_type(tree))):
        return tree
    others = [value for value in every(tree) if isinstance(value, (Opaque, TypedStorage))]
    return revived(tree, backend, lambda leaves: materialize(leaves, library(backend)), others)


def revived(tree: Any, backend: str, read: Callable[[list[Any]], list[Any]], among: Any = None) -> Any:
    """Replace every placeholder in a tree by its value: leaves by the arrays that `read` makes of them, bare storages,
    PyTorch's constants, and instances of the allowed classes. Returns the tree itself if nothing is replaced.

    Values of any other class stay Opaque. `among`: read only the leaves inside these values.
    """
    from statedict.formats import TypedStorage

    leaves, storages, attributes = _unread(tree if among is None else among, TypedStorage)
    arrays = read([*leaves, *(storage.leaf() for storage in storages)])
    replace, _, remake, storage_of, finish = _revival(backend)
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
    """Return the leaves and bare storages of a tree, and the Python attributes saved with tensors, by the tensors' ids."""
    leaves: list[Any] = []
    storages: list[Any] = []
    attributes: dict[int, Any] = {}
    found = tensors_of(tree, storage)
    while found:
        new = [value for value in found if isinstance(value, (Leaf, Compound))]
        leaves += new
        storages += [value for value in found if isinstance(value, storage)]
        # Leaves that are rows of a table do not have attributes.
        more = (
            {} if rows_of(new) else {id(leaf): dict(leaf.traits.attributes) for leaf in new if leaf.traits.attributes}
        )
        attributes |= more
        known = {*map(id, leaves), *map(id, storages)} if more else set()
        found = [value for value in tensors_of(list(more.values()), storage) if id(value) not in known]
    return leaves, storages, attributes


class _Revival(NamedTuple):
    """How the placeholders of a file become values of an array library.

    Attributes:
        replace: replaces a value that is not a container.
        kinds: the types of the values that `replace` changes.
        remake: returns how to build the value that an Opaque describes.
        storage: returns the storage of an array that covers all of it.
        finish: sets the Python attributes of a tensor.
    """

    replace: Callable[[Any], Any]
    kinds: Collection[type]
    remake: Callable[[Opaque], Maker | None]
    storage: Callable[[Any, Any], Any]
    finish: Callable[[Any, Any], None]


def _revival(backend: str) -> _Revival:
    if backend != "torch":
        return _Revival(lambda value: value, (), maker_of, lambda array, storage: array, lambda array, attributes: None)
    from statedict import torch

    return _Revival(torch.revived, torch.REVIVED, torch.maker, torch.storage_shown, torch.set_attributes)


def placed(state: StateDict, devices: Mapping[str, Any], *, verify: bool) -> StateDict:
    """Move the tensors of these names to their devices, as torch tensors; unread leaves are read.

    Tied tensors that are moved to the same device stay tied.
    """
    from statedict.torch import materialize_on

    moved: dict[str, Any] = {}
    for device in dict.fromkeys(devices.values()):
        leaves = {name: leaf for name, leaf in state.leaves() if devices.get(name) == device}
        moved |= zip(leaves, materialize_on(list(leaves.values()), device, verify=verify))
    return state | moved


def copied(tree: Any, out: Any = None) -> Any:
    """Copy a tree so that the copy shares no memory with it; reuses the memory of `out` if the layout is the same."""
    if holds_torch(tree):
        from statedict.torch import snapshot

        return snapshot(tree, out)
    return independent(tree, out)


class Copy(NamedTuple):
    """A copy of a tree, and the library's record of the memory it uses."""

    tree: Any
    memory: Any = None


def copied_again(tree: Any, before: Copy) -> Copy:
    """Copy a tree as `copied` does, into the memory of the copy `before`, which only the caller may hold."""
    if before.memory is not None and before.memory.refill(tree):
        return before
    if not holds_torch(tree):
        return Copy(independent(tree, before.tree))
    from statedict.torch import take

    return Copy(*take(tree, before.tree))


def holds_torch(tree: Any) -> bool:
    """Whether a tree contains a torch tensor."""
    return bool(sys.modules.get("torch")) and any(
        getattr(library_of(value), "name", None) == "torch" for value in one_of_each_type(tree)
    )
