"""Spherical interpolation of two states, each tensor as one vector.

The angle between the two is found by reading both in pieces, when the result is first read; then it is a weighted sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import acos, sin, sqrt
from typing import TYPE_CHECKING, Any

from statedict.state import DType, Leaf, cast_array, elementwise, pieces
from statedict.state import dtype as find_dtype

from ..operations._joins import plain
from ._sums import wide

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_ELEMENTS = 1 << 18
# For a larger cosine the sine of the angle would consist of rounding errors (the threshold of mergekit).
_STRAIGHT = 0.9995


def interpolated(leaves: Sequence[Leaf], along: float) -> Leaf:
    """Return the tensor at the position `along` (0 to 1) between two, in the dtype of the first."""
    first, second = leaves
    dtype, arc = first.spec.dtype, _Arc(first, second, along)
    wider = wide(dtype)

    def between(a: Array, b: Array) -> Array:
        one, other = arc.weights
        return cast_array(cast_array(a, wider) * one + cast_array(b, wider) * other, dtype)

    return elementwise(dtype, [first, second], between, plain(first))


class _Arc:
    """The position on an arc between two tensors: on the straight line if they are (anti)parallel or zero."""

    def __init__(self, first: Leaf, second: Leaf, along: float) -> None:
        self._leaves = first, second
        self._along = along

    @cached_property
    def weights(self) -> tuple[float, float]:
        """The weights of the two tensors in their sum."""
        import numpy as np

        exact = _exact(self._leaves[0].spec.dtype)
        products = np.zeros(3)
        for raw in zip(*(pieces(leaf, _ELEMENTS) for leaf in self._leaves)):
            a, b = (cast_array(piece, exact) for piece in raw)
            products += [np.vdot(x, y).real for x, y in ((a, b), (a, a), (b, b))]
        norms = sqrt(products[1]) * sqrt(products[2])
        cosine = float(products[0]) / norms if norms else 1.0
        if not abs(cosine) <= _STRAIGHT:
            return 1 - self._along, self._along
        angle = acos(cosine)
        return sin((1 - self._along) * angle) / sin(angle), sin(self._along * angle) / sin(angle)


def _exact(dtype: DType) -> DType:
    """Return the dtype in which the products of elements are added up."""
    return find_dtype("complex128" if dtype.is_complex else "float64")
