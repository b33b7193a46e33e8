"""Adaptations make a tensor fit a slot of another shape; a policy decides which adaptation to use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Leaf, Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Adaptation(NamedTuple):
    """A change of shape that is made when the tensor is read.

    Attributes:
        text: a description for reports.
        spec: the spec of the result.
        function: makes the result from the source's array; if `keeps`, the slot's own array is its second argument.
        keeps: whether some of the slot's own values are kept.
        within: makes the result inside a box from the same leaves, source first, with no more of them than needed; None if
            the function needs all of them.
    """

    text: str
    spec: Spec
    function: Callable[..., Array]
    keeps: bool = False
    within: Callable[..., Leaf] | None = None


@dataclass(frozen=True)
class Policy:
    """A way to handle tensors of a different shape.

    Attributes:
        name: its name in arguments and reports.
        decide: returns an Adaptation for the specs of source and slot, or the reason why it is not possible.
        blanket: a regular expression for the names it applies to if it is given for all names at once.
    """

    name: str
    decide: Callable[[Spec, Spec], Adaptation | str]
    blanket: str = ""


def working(dtype: DType) -> np.dtype[Any]:
    """Return the NumPy dtype to compute in: complex128 for complex, float64 for float64 and integers, else float32."""
    import numpy as np

    if dtype.is_complex:
        return np.dtype(np.complex128)
    return np.dtype(np.float32 if dtype.is_floating and dtype.itemsize <= 4 else np.float64)
