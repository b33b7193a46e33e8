"""Piecewise linear activations. `inplace=True` also writes the result into the input."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import Array, asarray, cast, dtype_of, unwrap
from .._generator import generator
from ._in_place import into


def relu(input: Any, inplace: bool = False) -> Array:
    """max(x, 0).

    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    xp, x = unwrap(input)
    return into(input, np.maximum(x, 0) if xp is np else xp.clip(x, 0, None), inplace)


def relu6(input: Any, inplace: bool = False) -> Array:
    """min(max(x, 0), 6).

    >>> relu6(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """
    return hardtanh(input, 0.0, 6.0, inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Array:
    """x, and negative_slope·x where x is negative.

    >>> leaky_relu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.02, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    return into(input, xp.where(x > 0, x, x * negative_slope), inplace)


def prelu(input: Any, weight: Any) -> Array:
    """x, and weight·x where x is negative; weight is (1,), or one value per channel (dimension 1).

    >>> prelu(np.array([-2.0, 3.0]), np.array([0.25])).tolist()
    [-0.5, 3.0]
    """
    xp, x, weight = unwrap(input, weight)
    if weight.ndim == 1:
        weight = xp.reshape(weight, (1, -1, *(1,) * (x.ndim - 2)) if x.ndim > 1 else (-1,) * x.ndim)
    return xp.where(x > 0, x, x * weight)


def rrelu(
    input: Any, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False, inplace: bool = False
) -> Array:
    """x, and slope·x where x is negative. The slope is random for each element in training, else the mean of the bounds.

    >>> rrelu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.458, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    slope: Any = (lower + upper) / 2
    if training:
        drawn = asarray(x, generator().uniform(lower, upper, tuple(x.shape)))
        slope = cast(drawn, dtype_of(x.dtype))
    return into(input, xp.where(x > 0, x, x * slope), inplace)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Array:
    """x, clipped to min_val and max_val.

    >>> hardtanh(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.0, 0.5, 1.0]
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    xp, x = unwrap(input)
    return into(input, xp.clip(x, min_val, max_val), inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Array:
    """min(max(x + 3, 0), 6) / 6.

    >>> hardsigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.167, 0.583, 1.0]
    """
    xp, x = unwrap(input)
    return into(input, xp.clip(x + 3, 0, 6) / 6, inplace)


def hardswish(input: Any, inplace: bool = False) -> Array:
    """x·hardsigmoid(x).

    >>> hardswish(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.333, 0.292, 3.0]
    """
    xp, x = unwrap(input)
    return into(input, x * xp.clip(x + 3, 0, 6) / 6, inplace)


def hardshrink(input: Any, lambd: float = 0.5) -> Array:
    """x, and 0 where |x| is at most lambd.

    >>> hardshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.0, 0.0, 3.0]
    """
    xp, x = unwrap(input)
    return xp.where(xp.abs(x) <= lambd, xp.zeros_like(x), x)


def softshrink(input: Any, lambd: float = 0.5) -> Array:
    """x moved towards 0 by lambd, and 0 within.

    >>> softshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.5, 0.0, 2.5]
    """
    xp, x = unwrap(input)
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return x - xp.clip(x, -lambd, lambd)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Array:
    """x where it is above `threshold`, `value` elsewhere.

    >>> threshold(np.array([-2.0, 0.5, 3.0]), 1.0, 9.0).tolist()
    [9.0, 9.0, 3.0]
    """
    xp, x = unwrap(input)
    return into(input, xp.where(x > threshold, x, xp.full_like(x, value)), inplace)
