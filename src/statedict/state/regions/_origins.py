"""Which bytes of files and memory a leaf is read from, however many steps it is away from them; no tensor is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ..tensors._leaf import Leaf, Storage


class Origin(NamedTuple):
    """Bytes `start … stop` of a storage that is not made from others."""

    storage: Storage
    start: int
    stop: int


class Derived(Protocol):
    """An optional interface of a Source whose storages are made from those of other Sources."""

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        """Return the origins of what `leaf`, a view of such a storage, shows; see the function of that name."""


def origins(leaf: Leaf) -> Iterator[Origin]:
    """Return the bytes that reading a leaf needs, at least; a range may include bytes that it does not need.

    The result depends only on the description of the tensor, so all processes that open the same file get the same.

    >>> from statedict.state import Box, leaf_of, region
    >>> [(start, stop) for _, start, stop in origins(region(leaf_of(np.zeros((4, 3))), Box((1, 0), (2, 3))))]
    [(24, 72)]
    """
    if not leaf.spec.numel:
        return
    # `isinstance` with a Protocol takes 10 µs.
    made_from = getattr(leaf.storage.source, "origins", None)
    if made_from is not None:
        yield from made_from(leaf)
    else:
        size = leaf.spec.dtype.itemsize
        yield Origin(leaf.storage, leaf.spec.offset * size, leaf.spec.reach * size)
