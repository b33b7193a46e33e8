"""Boxes that must tile a box: which parts of a tensor its chunks are, each of its elements once.

*Theory of operation.* Give each corner of a box a sign, + at the low end of an even number of its sides' other ends, and
so on alternating: the signed corners of a box are the mixed derivative of the function that is 1 inside it. Functions of
bounded support with the same derivative are the same, so boxes cover the whole exactly once if and only if their signed
corners add up to those of the whole. That is linear in the number of boxes, where comparing them in pairs is quadratic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

Box = tuple[tuple[int, ...], tuple[int, ...]]  # offsets, sizes

# A box has two corners for each cut dimension; meshes of devices have at most 4 or 5 dimensions.
MOST_CUT = 8


def tiling_problem(shape: Sequence[int], boxes: Sequence[Box]) -> str | None:
    """What is wrong with boxes that should cover `shape` exactly once, in words; None where nothing is.

    >>> tiling_problem((2, 3), [((0, 0), (1, 3)), ((1, 0), (1, 3))])
    >>> tiling_problem((2, 3), [((0, 0), (1, 3))])
    'they leave elements out, or overlap'
    """
    for offsets, sizes in boxes:
        if len(offsets) != len(shape) or len(sizes) != len(shape):
            return f"one has {len(sizes)} dimensions, not {len(shape)}"
        if any(at < 0 or size < 0 or at + size > whole for at, size, whole in zip(offsets, sizes, shape)):
            return f"{list(sizes)} at {list(offsets)} reaches outside {list(shape)}"
    cut = [axis for axis, whole in enumerate(shape) if any(sizes[axis] != whole for _, sizes in boxes)]
    if len(cut) > MOST_CUT:
        return f"they cut {len(cut)} dimensions; at most {MOST_CUT} can be checked"
    whole = ((0,) * len(shape), tuple(shape))
    filled = [box for box in boxes if prod(box[1])]
    if _corners(filled, cut) != _corners([whole] if prod(shape) else [], cut):
        return "they leave elements out, or overlap"
    return None


def _corners(boxes: Iterable[Box], cut: Sequence[int]) -> dict[tuple[int, ...], int]:
    """The sums of the signed corners, those that cancel out left out; only the cut dimensions count."""
    sums: dict[tuple[int, ...], int] = {}
    for offsets, sizes in boxes:
        sides = [((offsets[axis], 1), (offsets[axis] + sizes[axis], -1)) for axis in cut]
        for corner in product(*sides):
            point = tuple(at for at, _ in corner)
            sums[point] = sums.get(point, 0) + prod(sign for _, sign in corner)
    return {point: total for point, total in sums.items() if total}


def run_of(shape: Sequence[int], offsets: Sequence[int], sizes: Sequence[int]) -> tuple[int, int] | None:
    """The elements (first, count) that a box is of a row-major tensor, where they lie one after the other.

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
