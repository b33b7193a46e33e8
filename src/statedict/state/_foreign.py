"""Arrays of libraries that are known only by the array API standard, as leaves: JAX's, CuPy's.

They can be looked into and saved; what is made of leaves is NumPy's, from which their own functions make theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._leaf import Leaf
from ._numpy import NUMPY
from ._values import Compound


class ForeignLibrary:
    """The ArrayLibrary of arrays that speak DLPack."""

    name = "numpy"

    def leaf(self, array: Any) -> Leaf | None:
        return NUMPY.leaf(seen(array))

    def wholes(self, arrays: Sequence[Any]) -> None:
        """Leaves are as quick."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Any]:
        return NUMPY.arrays(leaves, memory)

    def compound(self, value: Compound, parts: dict[str, Any]) -> Compound:
        return NUMPY.compound(value, parts)

    def parts(self, array: Any) -> Any:
        return NUMPY.parts(seen(array))


def seen(array: Any) -> np.ndarray[Any, Any]:
    """The elements as a NumPy array: the same memory where they are on the CPU, a copy where they are not."""
    try:
        return np.asarray(array)
    except TypeError:
        # CuPy refuses what would be a silent copy from the device.
        copied: np.ndarray[Any, Any] = array.get()
        return copied


FOREIGN = ForeignLibrary()
