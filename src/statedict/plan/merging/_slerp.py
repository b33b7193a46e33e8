"""Spherical interpolation of two states, each tensor as one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from statedict.state import DType, Leaf, cast_array, computed

from ..operations._joins import plain
from ._sums import wide

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def interpolated(leaves: Sequence[Leaf], along: float) -> Leaf:
    """Return the tensor at the position `along` (0 to 1) between two; both are read completely."""
    first, second = leaves
    dtype = first.spec.dtype

    def arc(a: Array, b: Array) -> Array:
        return cast_array(_arc(a, b, along, wide(dtype)), dtype)

    return computed(first.spec.dense(), [first, second], arc, plain(first))


def _arc(a: Array, b: Array, along: float, wider: DType) -> Array:
    """Return the point on the arc from `a` to `b`; on the straight line if they are (anti)parallel or zero."""
    import numpy as np

    a, b = cast_array(a, wider), cast_array(b, wider)
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    cosine = float(np.vdot(a, b).real) / norms if norms else 1.0
    if abs(cosine) > 0.9995:  # the sine of the angle would consist of rounding errors
        between: Array = a * (1 - along) + b * along
        return between
    angle = np.arccos(cosine)
    arc: Array = (np.sin((1 - along) * angle) * a + np.sin(along * angle) * b) / np.sin(angle)
    return arc
