"""Merge the differences from a base after most of their elements were set to zero: TIES and DARE, as PEFT computes them.

A mask says which elements of a difference are kept: those of the largest magnitude (TIES), or random ones, which are then
divided by the density (DARE). The masks are leaves of one byte for each element, and everything else is computed in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from statedict.errors import MergeError
from statedict.state import Leaf, cast_array, computed, contiguous, elementwise
from statedict.state import dtype as find_dtype

from ..operations._joins import plain
from ._random_mask import random_mask
from ._sums import arithmetic

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PIECE = 1 << 20


def ties(name: str, leaves: Sequence[Leaf], weights: Sequence[float], density: float) -> Leaf:
    """Return the base (the first leaf) plus the merged differences: keep the `density` of largest magnitude in each, elect a
    sign for each element, and average the weighted elements that have it.
    """
    base, *others = _real(name, leaves)
    masks = [_largest(_magnitude(base, other), density) for other in others] if density < 1 else []
    return _merged(base, others, masks, weights, elect=True)


def dare(
    name: str, leaves: Sequence[Leaf], weights: Sequence[float], density: float, seed: int, *, elect: bool
) -> Leaf:
    """Return the base (the first leaf) plus the merged differences, of which a random `density` is kept and rescaled.

    `elect`: merge them as TIES does (`dare_ties`); otherwise add up the weighted differences (`dare_linear`). Which elements
    are kept depends only on the seed, the name, the number of the source, and the place of the element.
    """
    base, *others = _real(name, leaves)
    keys = [f"{seed}/{number}/{name}" for number in range(len(others))]
    masks = [random_mask(base.spec.shape, key, density) for key in keys] if density < 1 else []
    return _merged(base, others, masks, weights, elect=elect, rescale=density)


def _real(name: str, leaves: Sequence[Leaf]) -> Sequence[Leaf]:
    if any(leaf.spec.dtype.is_complex for leaf in leaves):
        raise MergeError(f"{name!r} is complex: its elements do not have a sign", names=[name])
    return leaves


def _magnitude(base: Leaf, other: Leaf) -> Leaf:
    """Return the magnitudes of a difference, in float32 or float64; NaN counts as the largest number, as in PyTorch."""
    dtype = find_dtype("float64" if base.spec.dtype.name == "float64" else "float32")

    def magnitude(first: Array, second: Array) -> Array:
        import numpy as np

        found = np.abs(_subtracted(first, second, base=base)).astype(dtype.numpy, copy=False)
        found[np.isnan(found)] = np.inf
        return found

    return elementwise(dtype, [base, other], magnitude)


def _subtracted(first: Array, second: Array, *, base: Leaf) -> Array:
    working, rounded = arithmetic(base.spec.dtype)
    return rounded(cast_array(second, working) - cast_array(first, working))


def _largest(leaf: Leaf, density: float) -> Leaf:
    """Return the mask of the largest elements; of equal ones, the first are kept."""
    count = int(density * leaf.spec.numel)
    spec = contiguous(find_dtype("bool"), leaf.spec.shape)
    return computed(spec, [leaf], partial(_mask_of_largest, count=count))


def _mask_of_largest(array: Array, count: int) -> Array:
    import numpy as np

    kept = np.zeros(array.size, bool)
    if count:
        sizes = array.reshape(-1)
        threshold = _largest_but(sizes, count)
        np.greater(sizes, threshold, out=kept)
        left = count - int(np.count_nonzero(kept))
        for start in range(0, sizes.size, _PIECE):
            equal = np.flatnonzero(sizes[start : start + _PIECE] == threshold)[:left]
            kept[start + equal] = True
            left -= len(equal)
    return kept.reshape(array.shape)


def _largest_but(sizes: Array, count: int) -> Any:
    """Return the `count`-th largest of these floats, which are not negative.

    Their bits, read as integers, have the same order. So those with the same upper 16 bits as the result are found by
    counting, and only these are copied and sorted: for 268 MB of random numbers this takes 14 MB, instead of 268 MB.
    """
    import numpy as np

    upper = sizes.view("<u2")[sizes.itemsize // 2 - 1 :: sizes.itemsize // 2]
    counts = np.zeros(1 << 16, np.int64)
    pieces = [slice(start, start + _PIECE) for start in range(0, sizes.size, _PIECE)]
    for piece in pieces:
        counts += np.bincount(upper[piece], minlength=1 << 16)
    above = np.cumsum(counts[::-1])[::-1]
    wanted = int(np.flatnonzero(above >= count)[-1])
    same = np.concatenate([sizes[piece][upper[piece] == wanted] for piece in pieces])
    place = len(same) - (count - int(above[wanted] - counts[wanted]))
    return np.partition(same, place)[place]


def _merged(
    base: Leaf,
    others: Sequence[Leaf],
    masks: Sequence[Leaf],
    weights: Sequence[float],
    *,
    elect: bool,
    rescale: float = 1,
) -> Leaf:
    dtype = base.spec.dtype
    working, rounded = arithmetic(dtype)

    def merged(first: Array, *arrays: Array) -> Array:
        import numpy as np

        kind = working.numpy.type
        found = [_subtracted(first, array, base=base) for array in arrays[: len(others)]]
        for number, mask in enumerate(arrays[len(others) :]):
            found[number] = found[number] * mask
            if rescale != 1:
                found[number] = rounded(found[number] / kind(rescale))
        weighted = [difference * kind(weight) for difference, weight in zip(found, weights)]
        if elect:
            sign = np.where(rounded(sum(found[1:], found[0])) >= 0, kind(1), kind(-1))
            agree = [np.sign(difference) == sign for difference in found]
            weighted = [difference * mask for difference, mask in zip(weighted, agree)]
        total = sum(weighted[1:], weighted[0])
        if elect:
            total = total / np.maximum(sum(agree, np.zeros(first.shape, kind)), kind(1))
        return cast_array(cast_array(first, working) + total, dtype)

    return elementwise(dtype, [base, *others, *masks], merged, plain(base))
