"""Casting a leaf to another dtype, when it is read.

Rounding is NumPy's and ml_dtypes' round-to-nearest-even, which PyTorch's casts use too.
"""

from __future__ import annotations

from typing import Any

from ._computed import computed
from ._dtype import DType
from ._leaf import Leaf


def cast_leaf(leaf: Leaf, dtype: DType) -> Leaf:
    """The leaf with its elements as `dtype`: dense, read and cast when it is read."""
    if leaf.spec.dtype is dtype:
        return leaf
    traits = leaf.traits._replace(conj=False, neg=False)

    def as_dtype(array: Any) -> Any:
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(dtype.numpy)

    return computed(leaf.spec._replace(dtype=dtype), [leaf], as_dtype, traits)
