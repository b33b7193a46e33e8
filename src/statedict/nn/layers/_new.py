"""New arrays for a layer's parameters and buffers, from the `device` and `dtype` that PyTorch's constructors take."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import dtype_of, on_device
from .._parameter import Buffer, Parameter


def parameter(shape: int | tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """A Parameter whose elements are not set yet: the layer's `reset_parameters` does that. float32 unless said."""
    return Parameter(_empty(shape, device, dtype))


def buffer(shape: int | tuple[int, ...], value: float, device: Any, dtype: Any) -> Buffer:
    """A Buffer of equal elements. It keeps its identity when its array cannot be written and is replaced (JAX)."""
    array = _empty(shape, device, dtype)
    array[...] = value
    return Buffer(array)


def _empty(shape: int | tuple[int, ...], device: Any, dtype: Any) -> Any:
    array = np.empty(shape, dtype_of("float32" if dtype is None else dtype).numpy)
    return array if device is None else on_device(array, device)
