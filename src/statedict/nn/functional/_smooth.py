"""Smooth activations. `inplace=True` also writes the result into the input."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from .._arrays import Array, unwrap
from ._erf import erfc
from ._in_place import into


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Array:
    """x, and alpha·(exp(x) - 1) where x is negative.

    >>> elu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    # Avoids an overflow warning: the exponential of a large number would not be used anyway.
    return into(input, xp.where(x > 0, x, alpha * xp.expm1(xp.clip(x, None, 0))), inplace)


def selu(input: Any, inplace: bool = False) -> Array:
    """The self-normalising elu: Klambauer et al., 2017.

    >>> selu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.52, 0.525, 3.152]
    """
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return into(input, scale * elu(input, alpha), inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Array:
    """x, and alpha·(exp(x/alpha) - 1) where x is negative.

    >>> celu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    return into(input, xp.where(x > 0, x, alpha * xp.expm1(xp.clip(x, None, 0) / alpha)), inplace)


def gelu(input: Any, approximate: str = "none") -> Array:
    """x·Φ(x), with Φ the normal distribution function; `approximate="tanh"` uses tanh.

    >>> gelu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.046, 0.346, 2.996]
    """
    xp, x = unwrap(input)
    if approximate == "tanh":
        return 0.5 * x * (1 + xp.tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))
    if approximate != "none":
        raise RuntimeError("approximate argument must be either none or tanh.")
    return x * (0.5 * erfc(x * -sqrt(0.5)))


def sigmoid(input: Any) -> Array:
    """1 / (1 + exp(-x)): exact to a few units in the last place in both tails.

    >>> sigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.119, 0.622, 0.953]
    """
    xp, x = unwrap(input)
    with np.errstate(over="ignore", under="ignore"):
        return 1 / (1 + xp.exp(-x))


def tanh(input: Any) -> Array:
    """The hyperbolic tangent.

    >>> tanh(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.964, 0.462, 0.995]
    """
    xp, x = unwrap(input)
    return xp.tanh(x)


def silu(input: Any, inplace: bool = False) -> Array:
    """x·sigmoid(x).

    >>> silu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.238, 0.311, 2.858]
    """
    _, x = unwrap(input)
    return into(input, x * sigmoid(x), inplace)


def mish(input: Any, inplace: bool = False) -> Array:
    """x·tanh(softplus(x)).

    >>> mish(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.253, 0.375, 2.987]
    """
    xp, x = unwrap(input)
    return into(input, x * xp.tanh(softplus(x)), inplace)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above `threshold`.

    >>> softplus(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.127, 0.974, 3.049]
    """
    xp, x = unwrap(input)
    scaled = x * beta
    with np.errstate(under="ignore"):
        soft = (xp.clip(scaled, 0, None) + xp.log1p(xp.exp(-xp.abs(scaled)))) / beta
    return xp.where(scaled > threshold, x, soft)


def logsigmoid(input: Any) -> Array:
    """log(sigmoid(x)).

    >>> logsigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.127, -0.474, -0.049]
    """
    xp, x = unwrap(input)
    with np.errstate(under="ignore"):
        return xp.clip(x, None, 0) - xp.log1p(xp.exp(-xp.abs(x)))


def softsign(input: Any) -> Array:
    """x / (1 + |x|).

    >>> softsign(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.667, 0.333, 0.75]
    """
    xp, x = unwrap(input)
    return x / (1 + xp.abs(x))


def tanhshrink(input: Any) -> Array:
    """x - tanh(x).

    >>> tanhshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.036, 0.038, 2.005]
    """
    xp, x = unwrap(input)
    return x - xp.tanh(x)


def glu(input: Any, dim: int = -1) -> Array:
    """The first half of dimension `dim` times the sigmoid of the second.

    >>> glu(np.array([1.0, 2.0, 0.0, 0.0])).tolist()
    [0.5, 1.0]
    """
    _, x = unwrap(input)
    length = x.shape[dim]
    if length % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {length}")
    before = (slice(None),) * (dim % x.ndim)
    return x[(*before, slice(0, length // 2), ...)] * sigmoid(x[(*before, slice(length // 2, None), ...)])
