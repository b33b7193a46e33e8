"""Boxes: axis-aligned regions of a tensor, as (offsets, sizes).

`tiling_problem` checks that the chunks of a tensor cover each of its elements exactly once.

*Theory of operation.* Give each corner of a box a sign: + if it is at the upper end of an even number of dimensions, -
otherwise. The signed corners are the mixed derivative of the box's indicator function. Two functions of bounded support
with the same derivative are equal, so boxes cover the whole exactly once if and only if their signed corners sum to
those of the whole. This takes linear time in the number of boxes; comparing them in pairs is quadratic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod
from operator import add, mul, sub
from typing import NamedTuple

from ..tensors._leaf import Spec, contiguous_strides


class Box(NamedTuple):
    """The elements `offsets[axis] … offsets[axis] + sizes[axis]` of a tensor, along each axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    def within(self, other: Box) -> Box | None:
        """Return the part of this box that lies in `other`, relative to `other`; None if they have no element in common.

        >>> Box((2, 0), (4, 3)).within(Box((4, 0), (4, 3)))
        Box(offsets=(0, 0), sizes=(2, 3))
        """
        starts = tuple(map(max, self.offsets, other.offsets))
        stops = map(min, map(add, *self), map(add, *other))
        sizes = tuple(stop - start for start, stop in zip(starts, stops))
        return Box(tuple(map(sub, starts, other.offsets)), sizes) if min(sizes, default=1) > 0 else None

    def moved(self, by: Sequence[int]) -> Box:
        """Return the box at offsets that are larger by these numbers."""
        return Box(tuple(map(add, self.offsets, by)), self.sizes)


def whole_box(shape: Sequence[int]) -> Box:
    """Return the box of all elements of a tensor."""
    return Box((0,) * len(shape), tuple(shape))


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
    whole = whole_box(shape)
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


def boxes_of_run(shape: Sequence[int], first: int, count: int) -> list[Box]:
    """Return the boxes that elements `first … first + count` of a row-major tensor form, in order; partner of `run_of`.

    >>> boxes_of_run((4, 3), 2, 5)
    [Box(offsets=(0, 2), sizes=(1, 1)), Box(offsets=(1, 0), sizes=(1, 3)), Box(offsets=(2, 0), sizes=(1, 1))]
    """
    if not count:
        return []
    if not shape:
        return [Box((), ())]
    inner, step = shape[1:], prod(shape[1:])
    row, within = divmod(first, step)
    boxes = []
    if within or count < step:
        head = min(count, step - within)
        boxes += [_in_row(row, box) for box in boxes_of_run(inner, within, head)]
        row, count = row + 1, count - head
    if count >= step:
        boxes.append(Box((row, *(0,) * len(inner)), (count // step, *inner)))
        row, count = row + count // step, count % step
    return boxes + [_in_row(row, box) for box in boxes_of_run(inner, 0, count)]


def _in_row(row: int, box: Box) -> Box:
    return Box((row, *box.offsets), (1, *box.sizes))


def narrowed(spec: Spec, box: Box) -> Spec:
    """Return the spec of the elements of a tensor in a box, as a view of the same storage.

    Raises ValueError if the box exceeds the tensor.
    """
    problem = None if len(box.sizes) == len(spec.shape) else f"a box has {len(box.sizes)} dimensions"
    if problem or any(at < 0 or n < 0 or at + n > whole for at, n, whole in zip(*box, spec.shape)):
        problem = problem or f"the box {list(box.sizes)} at {list(box.offsets)} exceeds the tensor"
        raise ValueError(f"{problem}: its shape is {list(spec.shape)}")
    return spec._replace(shape=box.sizes, offset=spec.offset + sum(map(mul, box.offsets, spec.strides)))


def box_shown(spec: Spec, shape: tuple[int, ...]) -> tuple[Box, tuple[int | None, ...]] | None:
    """Return the box of a row-major tensor of this shape that `spec` is a view of, and the tensor's axis that each axis of
    the view runs along (None for axes of size 1). None if the view is not a box with its axes in some order.

    >>> from statedict.state import contiguous, dtype
    >>> rows = contiguous(dtype("int8"), (4, 3))
    >>> box_shown(rows._replace(shape=(3, 2), strides=(1, 3), offset=3), (4, 3))
    (Box(offsets=(1, 0), sizes=(2, 3)), (1, 0))
    """
    steps, rest, offsets, sizes = contiguous_strides(shape), spec.offset, [], [1] * len(shape)
    for step in steps:
        at, rest = divmod(rest, step)
        offsets.append(at)
    axis_of = {step: axis for axis, (step, size) in enumerate(zip(steps, shape)) if size != 1}
    axes = tuple(None if size == 1 else axis_of.pop(step, -1) for size, step in zip(spec.shape, spec.strides))
    if -1 in axes or rest:
        return None
    for axis, size in zip(axes, spec.shape):
        if axis is not None:
            sizes[axis] = size
    box = Box(tuple(offsets), tuple(sizes))
    return None if any(at + n > whole for at, n, whole in zip(*box, shape)) else (box, axes)
