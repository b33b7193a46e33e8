"""Find tied tensors: those that share elements, not only a storage.

Fused RNN weights and flattened parameters are disjoint views of one storage, so they are not tied.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._leaf import Leaf, Spec

# The number of pairs of views of one storage to compare; beyond it, views whose ranges overlap are assumed to be tied.
_MOST_PAIRS = 20_000
# NumPy's limit (`max_work`) for the exact comparison of two strided views.
_MOST_WORK = 10_000


def tied(leaves: Sequence[Leaf]) -> list[list[int]]:
    """Return groups of leaves (as indices, in order) that share elements, directly or through other leaves.

    >>> from statedict.state import leaf_of
    >>> whole = np.zeros(6)
    >>> tied([leaf_of(view) for view in (whole[:3], whole[3:], whole[2:4], np.zeros(6))])
    [[0, 1, 2]]
    """
    together: dict[object, list[int]] = {}
    for index, leaf in enumerate(leaves):
        together.setdefault(leaf.storage.key, []).append(index)
    found: list[list[int]] = []
    for indices in together.values():
        if len(indices) > 1:
            found += _of_storage(leaves, indices)
    return sorted(found)


def _of_storage(leaves: Sequence[Leaf], indices: Sequence[int]) -> list[list[int]]:
    """Return the groups among the leaves of one storage."""
    views: dict[Spec, list[int]] = {}
    for index in indices:
        if leaves[index].spec.numel:
            views.setdefault(leaves[index].spec, []).append(index)
    groups: dict[int, list[int]] = {}
    for one, group in zip(views.values(), _overlapping(list(views))):
        groups.setdefault(group, []).extend(one)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _overlapping(views: Sequence[Spec]) -> list[int]:
    """Return the group number of each view of a storage."""
    parent = list(range(len(views)))

    def root(view: int) -> int:
        while parent[view] != view:
            parent[view] = view = parent[parent[view]]
        return view

    starts = [view.offset * view.dtype.itemsize for view in views]
    stops = [view.reach * view.dtype.itemsize for view in views]
    reaching: list[int] = []
    left = _MOST_PAIRS
    for view in sorted(range(len(views)), key=starts.__getitem__):
        reaching = [other for other in reaching if stops[other] > starts[view]]
        left -= len(reaching)
        for other in reaching:
            if root(other) != root(view) and (left < 0 or _meet(views[other], views[view])):
                parent[root(view)] = root(other)
        reaching.append(view)
        if left < 0:
            reaching = [max(reaching, key=stops.__getitem__)]
    return [root(view) for view in range(len(views))]


def _meet(one: Spec, other: Spec) -> bool:
    """Whether two views whose byte ranges overlap share a byte."""
    if one.is_contiguous and other.is_contiguous:
        return True
    import numpy as np

    a, b = (np.asarray(_Addresses(spec)) for spec in (one, other))
    try:
        return np.shares_memory(a, b, max_work=_MOST_WORK)  # type: ignore[arg-type]  # its stub knows -1 and 0
    except np.exceptions.TooHardError:
        return True


class _Addresses:
    """The addresses of a view's elements for NumPy, which does not access the memory."""

    def __init__(self, spec: Spec) -> None:
        size = spec.dtype.itemsize
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{size}",
            "data": (1 + spec.offset * size, True),
            "shape": spec.shape,
            "strides": tuple(stride * size for stride in spec.strides),
        }
