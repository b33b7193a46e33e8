"""Check that boxes tile a box: that the chunks of a tensor cover each of its elements exactly once.

*Theory of operation.* Give each corner of a box a sign: + if it is at the upper end of an even number of dimensions, -
otherwise. The signed corners are the mixed derivative of the box's indicator function. Two functions of bounded support
with the same derivative are equal, so boxes cover the whole exactly once if and only if their signed corners sum to
those of the whole. This takes linear time in the number of boxes; comparing them in pairs is quadratic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

Box = tuple[tuple[int, ...], tuple[int, ...]]  # offsets, sizes

# A box has two corners per split dimension; device meshes have at most 4 or 5 dimensions.
MOST_CUT = 8


def tiling_problem(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """Describe why the boxes do not cover `shape` exactly once; None if they do.

    >>> tiling_problem((2, 3), [((0, 0), (1, 3)), ((1, 0), (1, 3))])
    >>> tiling_problem((2, 3), [((0, 0), (1, 3))])
    'they leave gaps or overlap'
    """
    for offsets, sizes in boxes:
        if len(offsets) != len(shape) or len(sizes) != len(shape):
            return f"a chunk has {len(sizes)} dimensions, not {len(shape)}"
        if any(at < 0 or size < 0 or at + size > whole for at, size, whole in zip(offsets, sizes, shape)):
            return f"the chunk {list(sizes)} at {list(offsets)} exceeds the shape {list(shape)}"
    cut = [axis for axis, whole in enumerate(shape) if any(sizes[axis] != whole for _, sizes in boxes)]
    if len(cut) > MOST_CUT:
        return f"they are split along {len(cut)} dimensions; at most {MOST_CUT} are supported"
    whole = ((0,) * len(shape), tuple(shape))
    filled = [box for box in boxes if prod(box[1])]
    if _corners(filled, cut) != _corners([whole] if prod(shape) else [], cut):
        return "they leave gaps or overlap"
    return None


def _corners(boxes: Iterable[Box], cut: Sequence[int]) -> dict[tuple[int, ...], int]:
    """Return the sums of the signed corners, without those that cancel out; only the split dimensions count."""
    sums: dict[tuple[int, ...], int] = {}
    for offsets, sizes in boxes:
        sides = [((offsets[axis], 1), (offsets[axis] + sizes[axis], -1)) for axis in cut]
        for corner in product(*sides):
            point = tuple(at for at, _ in corner)
            sums[point] = sums.get(point, 0) + prod(sign for _, sign in corner)
    return {point: total for point, total in sums.items() if total}


def run_of(shape: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> tuple[int, int] | None:
    """Return the run of elements (first, count) that a box covers in a row-major tensor, if they are contiguous.

    >>> run_of((4, 3), (1, 0), (2, 3)), run_of((4, 3), (1, 0), (2, 2))
    ((3, 6), None)
    """
    first, step, whole = 0, 1, True
    for at, size, length in zip(reversed(offsets), reversed(sizes), reversed(shape)):
        if not whole and size != 1:
            return None
        whole = whole and size == length
        first += at * step
        step *= length
    return first, prod(sizes)
