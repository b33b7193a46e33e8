"""Casting a leaf to another dtype, when it is read: the elements that PyTorch's casts give.

Rounding is to the nearest, ties to even, by way of float32 for what is smaller.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ._cast_kind import NUMBERS
from ._computed import computed
from ._dtype import DType
from ._leaf import Leaf
from ._spec import contiguous
from ._ties import tied

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Casts:
    """Casts of leaves, each made once: leaves that show the same elements do so afterwards."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Leaf] = {}

    def leaf(self, leaf: Leaf, dtype: DType) -> Leaf:
        """The leaf with its elements as `dtype`: dense, read and cast when it is read.

        Raises ValueError if either dtype is not one of numbers (quantised types, bits).
        """
        if leaf.spec.dtype is dtype:
            return leaf
        made = self._made.get((leaf.shown, dtype))
        if made is None:
            made = self._made[leaf.shown, dtype] = _cast(leaf, dtype)
        return Leaf(made.spec, made.storage, leaf.traits._replace(conj=False, neg=False))

    def leaves(self, leaves: Sequence[Leaf], dtype: DType) -> list[Leaf]:
        """All of these leaves. Those that have only some elements in common stay views of one storage, too."""
        cast = [self.leaf(leaf, dtype) for leaf in leaves]
        for group in tied(leaves):
            some = [leaves[index] for index in group]
            if len({leaf.shown for leaf in some}) > 1 and len({leaf.spec.dtype for leaf in some}) == 1:
                for index, view in zip(group, self._views(some, dtype)):
                    cast[index] = view
        return cast

    def _views(self, leaves: Sequence[Leaf], dtype: DType) -> list[Leaf]:
        """The leaves as views of one storage, which holds the range that they reach."""
        start, stop = min(leaf.spec.offset for leaf in leaves), max(leaf.spec.reach for leaf in leaves)
        found = leaves[0].spec.dtype
        whole = self.leaf(Leaf(contiguous(found, (stop - start,), start), leaves[0].storage), dtype)
        return [
            Leaf(leaf.spec._replace(dtype=dtype, offset=leaf.spec.offset - start), whole.storage, leaf.traits)
            for leaf in leaves
        ]


def cast_leaf(leaf: Leaf, dtype: DType) -> Leaf:
    """One leaf with its elements as `dtype`; `Casts` keeps ties."""
    return Casts().leaf(leaf, dtype)


def _cast(leaf: Leaf, dtype: DType) -> Leaf:
    for one in (leaf.spec.dtype, dtype):
        if one.kind not in NUMBERS:
            raise ValueError(f"cannot cast {leaf.spec.dtype} to {dtype}: {one} is not a dtype of numbers")
    return computed(leaf.spec._replace(dtype=dtype), [leaf], lambda array: cast_array(array, dtype))


def cast_array(array: Array, dtype: DType) -> Array:
    """The elements of an array of numbers as `dtype`."""
    import numpy as np

    with np.errstate(all="ignore"):
        if array.dtype.names:
            array = _joined(array)
        if dtype.name == "complex32":
            return _halves(array)
        if array.dtype.kind == "c" and not dtype.is_complex:
            # PyTorch takes a complex number for true if either part is.
            array = array != 0 if dtype.kind == "bool" else array.real
        if dtype.is_floating and dtype.itemsize < 4:
            array = _fitted(array.astype(np.float32, copy=False), dtype)
        return array.astype(dtype.numpy)


def _fitted(array: Array, dtype: DType) -> Array:
    """What PyTorch makes of elements outside of the range of small floats, where ml_dtypes gives NaN."""
    import numpy as np

    if dtype.name == "float8_e4m3fn":
        return np.clip(array, -448, 448)
    if dtype.name == "float8_e8m0fnu":
        return np.maximum(np.abs(array), np.float32(2.0**-127))
    return array


def _joined(array: Array) -> Array:
    """Pairs of float16 as complex64."""
    import numpy as np

    whole = np.empty(array.shape, np.complex64)
    whole.real, whole.imag = array["real"], array["imag"]
    return whole


def _halves(array: Array) -> Array:
    """Numbers as pairs of float16."""
    import numpy as np

    halves = np.zeros(array.shape, [("real", "<f2"), ("imag", "<f2")])
    halves["real"] = array.real.astype(np.float32)
    if array.dtype.kind == "c":
        halves["imag"] = array.imag.astype(np.float32)
    return halves
