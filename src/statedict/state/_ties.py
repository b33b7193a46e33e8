"""Which tensors are tied: those that have elements in common, not those that merely lie in one storage.

Fused RNN weights and flattened parameters are disjoint views of one storage, and not tied.
"""

from __future__ import annotations

from collections.abc import Sequence

from ._leaf import Leaf
from ._spec import Spec

# Pairs of views of one storage that are compared; beyond that, views whose ranges overlap are taken to be tied.
_MOST_PAIRS = 20_000
# What NumPy may try to find out whether two strided views have a byte in common.
_MOST_WORK = 10_000


def tied(leaves: Sequence[Leaf]) -> list[list[int]]:
    """Groups of two or more leaves that have elements in common, directly or by way of others, as indices, in order.

    >>> import numpy as np
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
    """The groups among the leaves of one storage."""
    views: dict[Spec, list[int]] = {}
    for index in indices:
        if leaves[index].spec.numel:
            views.setdefault(leaves[index].spec, []).append(index)
    groups: dict[int, list[int]] = {}
    for one, group in zip(views.values(), _overlapping(list(views))):
        groups.setdefault(group, []).extend(one)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _overlapping(views: Sequence[Spec]) -> list[int]:
    """For each view of a storage the number of its group."""
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
    """Whether two views whose ranges of bytes overlap have a byte in common."""
    if one.is_contiguous and other.is_contiguous:
        return True
    import numpy as np

    a, b = (np.asarray(_Addresses(spec)) for spec in (one, other))
    try:
        return np.shares_memory(a, b, max_work=_MOST_WORK)  # type: ignore[arg-type]  # its stub knows -1 and 0
    except np.exceptions.TooHardError:
        return True


class _Addresses:
    """Where a view's elements lie, for NumPy, which never looks at what is there."""

    def __init__(self, spec: Spec) -> None:
        size = spec.dtype.itemsize
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{size}",
            "data": (1 + spec.offset * size, True),
            "shape": spec.shape,
            "strides": tuple(stride * size for stride in spec.strides),
        }
