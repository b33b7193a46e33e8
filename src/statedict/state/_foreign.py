"""Leaves for arrays of other libraries that follow the array API standard: JAX, CuPy.

Such arrays can be inspected and saved. Loading returns NumPy arrays, which the library's own functions can convert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._leaf import Leaf
from ._numpy import NUMPY
from ._values import Compound


class ForeignLibrary:
    """The ArrayLibrary of arrays that support DLPack."""

    name = "numpy"

    def leaf(self, array: Any) -> Leaf | None:
        return NUMPY.leaf(seen(array))

    def table(self, arrays: Sequence[Any]) -> None:
        """Return None: single leaves are as fast."""

    def arrays(self, leaves: Sequence[Leaf], memory: Sequence[memoryview]) -> list[Any]:
        return NUMPY.arrays(leaves, memory)

    def compound(self, value: Compound, parts: dict[str, Any]) -> Compound:
        return NUMPY.compound(value, parts)

    def parts(self, array: Any) -> Any:
        return NUMPY.parts(seen(array))


def seen(array: Any) -> np.ndarray[Any, Any]:
    """Return the array as a NumPy array: a view if it is on the CPU, else a copy."""
    try:
        return np.asarray(array)
    except TypeError:
        # CuPy refuses an implicit copy from the device.
        copied: np.ndarray[Any, Any] = array.get()
        return copied


FOREIGN = ForeignLibrary()
