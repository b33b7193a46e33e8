"""Copy a tree of arrays so that the copy shares no memory with it.

This is used for states without torch tensors; `statedict.torch` has its own, which supports devices and pinned memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from ..tensors._leaf import Leaf
from ..tensors._library import leaf_of, library
from ..tensors._materialize import materialize
from ..tensors._values import Compound
from ._tree import map_tree, tensors_of


def independent(tree: Any, out: Any = None) -> Any:
    """Return a deep copy of the tree in which arrays and leaves are new NumPy arrays; ties are preserved.

    `out` is an earlier copy that is no longer needed: its memory is reused if its tensors have the same layout.

    >>> weight = np.ones(2)
    >>> copied = independent({"a": weight, "b": [weight], "step": 3})
    >>> weight[:] = 0
    >>> copied
    {'a': array([1., 1.]), 'b': [array([1., 1.])], 'step': 3}
    """
    found = _leaves(tree)
    leaves = [leaf for _, leaf in found]
    copies = _onto(leaves, [array for array, _ in _leaves(out)]) if out is not None else None
    if copies is None:
        copies = materialize(leaves, library("numpy"))
    made = {id(value): copy for (value, _), copy in zip(found, copies)}
    return map_tree(tree, lambda value: made[id(value)] if id(value) in made else deepcopy(value))


def _leaves(tree: Any) -> list[tuple[Any, Leaf | Compound]]:
    """Return the tensors of the tree with their leaves. Arrays of text or objects do not count as tensors."""
    return [(value, leaf) for value in tensors_of(tree) if (leaf := leaf_of(value)) is not None]


def _onto(leaves: Sequence[Leaf | Compound], old: Sequence[Any]) -> list[Any] | None:
    """Copy the elements of the leaves into the `old` arrays; return None if these have a different layout."""
    import numpy as np

    from ..tensors._numpy import read_array

    if not all(isinstance(array, np.ndarray) and array.flags.writeable for array in old):
        return None
    olds = [leaf_of(array) for array in old]
    if _layout(leaves) is None or _layout(leaves) != _layout(olds) or _keys(leaves) & _keys(olds):
        return None
    for leaf, array in zip(leaves, old):
        np.copyto(array, read_array(leaf))  # type: ignore[arg-type]  # a layout has strided leaves only
    return list(old)


def _layout(leaves: Sequence[Leaf | Compound | None]) -> list[Any] | None:
    """Return the dtypes, shapes and ties of the leaves; None if one is not strided."""
    first: dict[Any, int] = {}
    layout = []
    for index, leaf in enumerate(leaves):
        if not isinstance(leaf, Leaf):
            return None
        owner = first.setdefault(leaf.storage.key, index)
        place = (leaf.spec.strides, leaf.spec.offset) if owner != index else None
        layout.append((leaf.spec.dtype, leaf.spec.shape, owner, place))
    return layout


def _keys(leaves: Sequence[Leaf | Compound | None]) -> set[Any]:
    return {leaf.storage.key for leaf in leaves if isinstance(leaf, Leaf)}
