"""Softmax and similar functions over one dimension."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .._arrays import Array, cast, dtype_of, unwrap


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Array:
    """exp(x) divided by its sum along `dim`; computed in `dtype` if given.

    >>> softmax(np.zeros(4), dim=0).tolist()
    [0.25, 0.25, 0.25, 0.25]
    """
    xp, x = unwrap(input)
    axis = _chosen(dim, "softmax", x.ndim, _stacklevel)
    x = x if dtype is None else cast(x, dtype_of(dtype))
    with np.errstate(under="ignore"):
        exponents = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return exponents / xp.sum(exponents, axis=axis, keepdims=True)


def softmin(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Array:
    """softmax(-x).

    >>> softmin(np.array([0.0, 1.0, 2.0]), -1).round(3).tolist()
    [0.665, 0.245, 0.09]
    """
    _, x = unwrap(input)
    return softmax(-x, _chosen(dim, "softmin", x.ndim, _stacklevel), dtype=dtype)


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Array:
    """log(softmax(x)), computed without underflow.

    >>> log_softmax(np.array([0.0, 1.0, 2.0]), -1).round(3).tolist()
    [-2.408, -1.408, -0.408]
    """
    xp, x = unwrap(input)
    axis = _chosen(dim, "log_softmax", x.ndim, _stacklevel)
    x = x if dtype is None else cast(x, dtype_of(dtype))
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    with np.errstate(under="ignore"):
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _chosen(dim: int | None, name: str, dimensions: int, stacklevel: int) -> int:
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if dimensions in (0, 1, 3) else 1
