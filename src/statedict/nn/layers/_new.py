"""Create arrays for a layer's parameters and buffers from the constructor arguments `device` and `dtype`."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import dtype_of, on_device
from .._parameter import Buffer, Parameter


def parameter(shape: int | tuple[int, ...], device: Any, dtype: Any) -> Parameter:
    """Return a Parameter that `reset_parameters` of the layer fills; its dtype is float32 by default."""
    return Parameter(_empty(shape, device, dtype))


def buffer(shape: int | tuple[int, ...], value: float, device: Any, dtype: Any) -> Buffer:
    """Return a Buffer of equal elements. It keeps its identity if its array is not writable and is replaced (JAX)."""
    array = _empty(shape, device, dtype)
    array[...] = value
    return Buffer(array)


def _empty(shape: int | tuple[int, ...], device: Any, dtype: Any) -> Any:
    array = np.empty(shape, dtype_of("float32" if dtype is None else dtype).numpy)
    return array if device is None else on_device(array, device)
