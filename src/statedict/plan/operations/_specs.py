"""The shape, dtype and spec of a value (an array, a Leaf, or its Spec), without reading it.

For in-memory tensors of any library, their own `shape` and `dtype` are used, so the library is not imported here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from statedict.state import DTYPES, Compound, DType, Leaf, Spec, contiguous

Shape = tuple[int, ...]


def shape_of(value: Any) -> Shape | None:
    """Return the shape of a tensor; None for other values, and for a lazy tensor that does not have a shape yet."""
    if isinstance(value, Leaf):
        return value.spec.shape
    try:
        return tuple(value.shape)
    except (AttributeError, TypeError, RuntimeError):  # PyTorch's uninitialised parameters raise RuntimeError
        return None


def dtype_of(value: Any) -> DType | None:
    """Return the dtype of a tensor; None for other values, and for a dtype that PyTorch does not have."""
    if isinstance(value, Leaf):
        return value.spec.dtype
    if isinstance(value, Compound):
        return value.dtype
    return DTYPES.get(str(getattr(value, "dtype", "")).removeprefix("torch."))


def spec_of(value: Any) -> Spec | None:
    """Return the spec of a strided tensor, that of a dense one if it is in memory; None for other values."""
    if isinstance(value, Spec):
        return value
    if isinstance(value, Leaf):
        return value.spec
    shape, dtype = shape_of(value), dtype_of(value)
    if shape is None or dtype is None or isinstance(value, Compound) or not _is_strided(value):
        return None
    return _dense(dtype, shape)


# A model has few shapes: 100,000 tensors are described in 0.2 s instead of 0.35.
_dense = lru_cache(maxsize=1024)(contiguous)


def _is_strided(value: Any) -> bool:
    """Whether an in-memory tensor is not one of PyTorch's sparse, quantised or nested tensors."""
    strided = str(getattr(value, "layout", "torch.strided")) == "torch.strided"
    return strided and not (getattr(value, "is_quantized", False) or getattr(value, "is_nested", False))
