"""Read a tensor in pieces, so that it may be larger than memory.

The pieces of two tensors with equal shapes correspond, independent of their strides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._leaf import Leaf, Storage, contiguous

if TYPE_CHECKING:
    import numpy as np


def pieces(leaf: Leaf, elements: int) -> Iterator[np.ndarray[Any, Any]]:
    """Return the elements in row-major order as flat, contiguous arrays of `elements` each; the last may be shorter.

    A contiguous tensor in a file needs the memory of one piece. A strided or computed tensor is read completely, once.

    >>> import numpy as np
    >>> from statedict.state import leaf_of
    >>> [piece.tolist() for piece in pieces(leaf_of(np.arange(5)), 2)]
    [[0, 1], [2, 3], [4]]
    """
    import numpy as np

    from ._numpy import LIVE, read_array

    spec, storage, traits = leaf.spec, leaf.storage, leaf.traits
    view = storage.source.view(storage) if spec.numel > elements else None
    if view is not None:  # computed, or in memory: view it once, not once for each piece
        storage = Storage(LIVE, storage.key, storage.nbytes, view)
    if spec.is_contiguous:
        for start in range(0, spec.numel, elements):
            part = contiguous(spec.dtype, (min(elements, spec.numel - start),), spec.offset + start)
            yield read_array(Leaf(part, storage, traits))
        return
    array = read_array(Leaf(spec, storage, traits))
    # `reshape` copies the whole tensor, which is faster; for an expanded tensor the copy could be too large.
    flat = array.flat if spec.numel > elements and spec.nbytes > storage.nbytes else array.reshape(-1)
    for start in range(0, spec.numel, elements):
        yield np.ascontiguousarray(flat[start : start + elements])
