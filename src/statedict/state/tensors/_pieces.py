"""Read a tensor in pieces, so that it may be larger than memory.

The pieces of two tensors with equal shapes correspond, independent of their strides.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from ._leaf import Leaf, Storage, contiguous

if TYPE_CHECKING:
    import numpy as np


def pieces(leaf: Leaf, elements: int) -> Iterator[np.ndarray[Any, Any]]:
    """Return the elements in row-major order as flat, contiguous arrays of `elements` each; the last may be shorter.

    A contiguous tensor in a file needs the memory of one piece. A strided or computed tensor is read completely, once.

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


# The size of the pieces of `row_major`, in bytes.
PIECE = 4 << 20


def row_major(array: np.ndarray[Any, Any], start: int, stop: int) -> Iterator[memoryview]:
    """Yield bytes `start … stop` of an array's elements in row-major order; of a view, a few megabytes at a time.

    >>> [piece.tolist() for piece in row_major(np.array([[1, 2], [3, 4]], "u1").T, 1, 4)]
    [[3, 2, 4]]
    """
    import numpy as np

    from ._numpy import bytes_of

    if array.flags.c_contiguous:
        yield bytes_of(array)[start:stop]
        return
    # A piece is some rows along this axis, each with everything below it.
    sizes = [prod(array.shape[axis:]) * array.itemsize for axis in range(1, array.ndim + 1)]
    axis = next(axis for axis, row in enumerate(sizes) if row <= PIECE)
    step, at = PIECE // sizes[axis], 0
    for place in np.ndindex(array.shape[:axis]):
        for first in range(0, array.shape[axis], step):
            rows = array[place][first : first + step]
            if start < at + rows.nbytes and at < stop:
                yield bytes_of(np.ascontiguousarray(rows))[max(start - at, 0) : stop - at]
            at += rows.nbytes
