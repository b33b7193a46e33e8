"""What planning asks of a value (an array, a Leaf, or its Spec) without reading it: its shape and element type.

Live tensors of any library answer by their own `shape` and `dtype`, so that nothing of that library is imported here and
100,000 of them cost milliseconds.
"""

from __future__ import annotations

from typing import Any

from statedict.state import DTYPES, Compound, DType, Leaf, Spec, contiguous

Shape = tuple[int, ...]


def shape_of(value: Any) -> Shape | None:
    """The shape of a tensor; None for what is no tensor, or a lazy one that has no shape yet."""
    if isinstance(value, Leaf):
        return value.spec.shape
    try:
        return tuple(value.shape)
    except (AttributeError, TypeError, RuntimeError):  # PyTorch's uninitialised parameters raise RuntimeError
        return None


def dtype_of(value: Any) -> DType | None:
    """The element type of a tensor; None for what is no tensor, or has a type that PyTorch does not."""
    if isinstance(value, Leaf):
        return value.spec.dtype
    if isinstance(value, Compound):
        return value.dtype
    return DTYPES.get(str(getattr(value, "dtype", "")).removeprefix("torch."))


def spec_of(value: Any) -> Spec | None:
    """The spec of a strided tensor, taken as dense where it is live; None for anything else."""
    if isinstance(value, Spec):
        return value
    if isinstance(value, Leaf):
        return value.spec
    shape, dtype = shape_of(value), dtype_of(value)
    if shape is None or dtype is None or isinstance(value, Compound) or not _is_strided(value):
        return None
    return contiguous(dtype, shape)


def _is_strided(value: Any) -> bool:
    """Whether a live tensor is none of PyTorch's sparse, quantised and nested ones."""
    strided = str(getattr(value, "layout", "torch.strided")) == "torch.strided"
    return strided and not (getattr(value, "is_quantized", False) or getattr(value, "is_nested", False))
