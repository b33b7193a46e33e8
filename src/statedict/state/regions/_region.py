"""The part of a tensor inside a box, as a leaf that reads only the bytes that it needs.

`region` narrows the leaf's spec, and asks the Source of its storage for a smaller storage with the same elements:

- a file gives an excerpt (`_excerpt`): the runs of bytes that the box covers;
- a computed leaf passes the box down to its inputs, if its operation knows how (`computed(…, within=…)`);
- a tensor in parts (`_parts`: chunks in several files, a shard of a live model) takes the parts that overlap the box;
- memory is viewed as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Protocol, runtime_checkable

from ..tensors._leaf import Leaf, contiguous
from ..tensors._values import Compound
from ._boxes import Box, narrowed, whole_box
from ._excerpt import excerpt


@runtime_checkable
class Regional(Protocol):
    """An optional interface of a Source that can provide a part of a storage without the rest."""

    def part(self, leaf: Leaf) -> Leaf:
        """Return a leaf with the same elements and properties, in a storage that is only as large as they need."""


def region(leaf: Leaf | Compound, box: Box) -> Leaf:
    """Return the part of a tensor inside `box`; reads no tensor.

    Raises ValueError if the box exceeds the tensor, TypeError for a tensor that is not strided, and PartError if this
    process does not have all of the elements.

    >>> from statedict.state import leaf_of, read_array
    >>> read_array(region(leaf_of(np.arange(12).reshape(4, 3)), Box((1, 0), (2, 2))))
    array([[3, 4],
           [6, 7]])
    """
    if isinstance(leaf, Compound):
        raise TypeError(f"a {leaf.layout} tensor of shape {list(leaf.shape)} cannot be split into boxes: load it whole")
    spec = narrowed(leaf.spec, box)
    if box == whole_box(leaf.spec.shape):
        return leaf
    if not prod(box.sizes):
        return excerpt(Leaf(contiguous(spec.dtype, box.sizes), leaf.storage, leaf.traits))
    view = Leaf(spec, leaf.storage, leaf.traits)
    # Testing for `Regional` takes longer than making the part.
    part: Callable[[Leaf], Leaf] | None = getattr(leaf.storage.source, "part", None)
    return view if part is None else part(view)


def arranged(part: Leaf, view: Leaf, axes: tuple[int | None, ...]) -> Leaf:
    """Return `part`, a box of a tensor, with its axes in the order of `view`, which shows that box.

    `axes` are those that `box_shown` returns for the view.
    """
    strides = tuple(1 if axis is None else part.spec.strides[axis] for axis in axes)
    spec = part.spec._replace(shape=view.spec.shape, strides=strides)
    conj, neg = (getattr(view.traits, bit) != getattr(part.traits, bit) for bit in ("conj", "neg"))
    return Leaf(spec, part.storage, view.traits._replace(conj=conj, neg=neg))
