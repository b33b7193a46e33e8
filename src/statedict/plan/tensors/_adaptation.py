"""What it means to make a tensor fit a slot of another shape: a policy decides, an adaptation is what it decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Spec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Adaptation(NamedTuple):
    """What is done: `text` in words, `spec` what comes out, `function` makes it of the source's array when it is read.

    Where it `keeps` something, the function wants the slot's own array as its second argument.
    """

    text: str
    spec: Spec
    function: Callable[..., Array]
    keeps: bool = False


@dataclass(frozen=True)
class Policy:
    """A way to make tensors fit.

    Attributes:
        name: what it is called, in arguments and reports.
        decide: an Adaptation from the specs of source and slot, or the reason why there is none.
        blanket: where it is given for all names at once, a regular expression for those that it is meant for.
    """

    name: str
    decide: Callable[[Spec, Spec], Adaptation | str]
    blanket: str = ""


def working(dtype: DType) -> np.dtype[Any]:
    """The NumPy dtype to compute in: complex128 for complex, float64 for float64 and integers, float32 for the rest."""
    import numpy as np

    if dtype.is_complex:
        return np.dtype(np.complex128)
    return np.dtype(np.float32 if dtype.is_floating and dtype.itemsize <= 4 else np.float64)
