"""Cast a leaf to another dtype when it is read, with the same results as PyTorch's casts.

Rounds to nearest, ties to even; dtypes smaller than float32 are cast by way of float32, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from ..tensors._dtype import DType
from ..tensors._leaf import Leaf, contiguous
from ..tensors._ties import tied
from ._cast_kind import NUMBERS
from ._computed import elementwise

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Casts:
    """A cache of casts: leaves with the same elements share one cast, so ties are preserved."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Leaf] = {}

    def leaf(self, leaf: Leaf, dtype: DType) -> Leaf:
        """Return the leaf cast to `dtype`, dense; it is read and cast on access.

        Raises ValueError if either dtype is not numeric (quantised types, bits).
        """
        if leaf.spec.dtype is dtype:
            return leaf
        made = self._made.get((leaf.identity, dtype))
        if made is None:
            made = self._made[leaf.identity, dtype] = _cast(leaf, dtype)
        return Leaf(made.spec, made.storage, leaf.traits._replace(conj=False, neg=False))

    def leaves(self, leaves: Sequence[Leaf], dtype: DType) -> list[Leaf]:
        """Cast all of these leaves. Leaves that overlap only partly also stay views of one storage."""
        cast = [self.leaf(leaf, dtype) for leaf in leaves]
        for group in tied(leaves):
            some = [leaves[index] for index in group]
            if len({leaf.identity for leaf in some}) > 1 and len({leaf.spec.dtype for leaf in some}) == 1:
                for index, view in zip(group, self._views(some, dtype)):
                    cast[index] = view
        return cast

    def _views(self, leaves: Sequence[Leaf], dtype: DType) -> list[Leaf]:
        """Return the cast leaves as views of one storage, which covers the range of all of them."""
        start, stop = min(leaf.spec.offset for leaf in leaves), max(leaf.spec.reach for leaf in leaves)
        found = leaves[0].spec.dtype
        whole = self.leaf(Leaf(contiguous(found, (stop - start,), start), leaves[0].storage), dtype)
        return [
            Leaf(leaf.spec._replace(dtype=dtype, offset=leaf.spec.offset - start), whole.storage, leaf.traits)
            for leaf in leaves
        ]


def cast_leaf(leaf: Leaf, dtype: DType) -> Leaf:
    """Return one leaf cast to `dtype`; use `Casts` to preserve ties."""
    return Casts().leaf(leaf, dtype)


def _cast(leaf: Leaf, dtype: DType) -> Leaf:
    for one in (leaf.spec.dtype, dtype):
        if one.kind not in NUMBERS:
            raise ValueError(f"cannot cast {leaf.spec.dtype} to {dtype}: {one} is not a numeric dtype")
    return elementwise(dtype, [leaf], lambda array: cast_array(array, dtype))


def cast_array(array: Array, dtype: DType) -> Array:
    """Return the elements of a numeric array cast to `dtype`."""
    import numpy as np

    with np.errstate(all="ignore"):
        if array.dtype.names:
            array = _joined(array)
        if dtype.name == "complex32":
            return _halves(array)
        if array.dtype.kind == "c" and not dtype.is_complex:
            # As in PyTorch, a complex number is true if either part is not zero.
            array = array != 0 if dtype.kind == "bool" else array.real
        if dtype.is_floating and dtype.itemsize < 4:
            array = _clipped(array.astype(np.float32, copy=False), dtype)
        return array.astype(dtype.numpy)


def _clipped(array: Array, dtype: DType) -> Array:
    """Clip elements to the range of small floats as PyTorch does; ml_dtypes would give NaN."""
    import numpy as np

    if dtype.name == "float8_e4m3fn":
        return np.clip(array, -448, 448)
    if dtype.name == "float8_e8m0fnu":
        return np.maximum(np.abs(array), np.float32(2.0**-127))
    return array


def _joined(array: Array) -> Array:
    """Convert pairs of float16 to complex64."""
    import numpy as np

    whole = np.empty(array.shape, np.complex64)
    whole.real, whole.imag = array["real"], array["imag"]
    return whole


def _halves(array: Array) -> Array:
    """Convert numbers to pairs of float16."""
    import numpy as np

    halves = np.zeros(array.shape, [("real", "<f2"), ("imag", "<f2")])
    halves["real"] = array.real.astype(np.float32)
    if array.dtype.kind == "c":
        halves["imag"] = array.imag.astype(np.float32)
    return halves
