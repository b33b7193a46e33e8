"""Nonlinearities, elementwise and over one dimension, by PyTorch's names.

`inplace=True` writes the result into the input as well, where its library can.
"""

from __future__ import annotations

import warnings
from math import pi, sqrt
from typing import Any

import numpy as np

from .._arrays import Array, asarray, cast, dtype_of, put, unwrap
from .._generator import generator
from ._erf import erfc


def relu(input: Any, inplace: bool = False) -> Array:
    """max(x, 0).

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    xp, x = unwrap(input)
    return _into(input, np.maximum(x, 0) if xp is np else xp.clip(x, 0, None), inplace)


def relu6(input: Any, inplace: bool = False) -> Array:
    """min(max(x, 0), 6).

    >>> import numpy as np
    >>> relu6(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """
    return hardtanh(input, 0.0, 6.0, inplace)


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Array:
    """x, and negative_slope·x where x is negative.

    >>> import numpy as np
    >>> leaky_relu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.02, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    return _into(input, xp.where(x > 0, x, x * negative_slope), inplace)


def prelu(input: Any, weight: Any) -> Array:
    """x, and weight·x where x is negative; weight is (1,) or one a channel (dimension 1).

    >>> import numpy as np
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
    """x, and slope·x where x is negative: drawn evenly for each element in training, the mean of the two otherwise.

    >>> import numpy as np
    >>> rrelu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.458, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    slope: Any = (lower + upper) / 2
    if training:
        drawn = asarray(x, generator().uniform(lower, upper, tuple(x.shape)))
        slope = cast(drawn, dtype_of(x.dtype))
    return _into(input, xp.where(x > 0, x, x * slope), inplace)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Array:
    """x, and alpha·(exp(x) - 1) where x is negative.

    >>> import numpy as np
    >>> elu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    # The exponential of a large number is never computed, though it would not be chosen.
    return _into(input, xp.where(x > 0, x, alpha * xp.expm1(xp.clip(x, None, 0))), inplace)


def selu(input: Any, inplace: bool = False) -> Array:
    """The self-normalising elu: Klambauer et al., 2017.

    >>> import numpy as np
    >>> selu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.52, 0.525, 3.152]
    """
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    return _into(input, scale * elu(input, alpha), inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Array:
    """x, and alpha·(exp(x/alpha) - 1) where x is negative.

    >>> import numpy as np
    >>> celu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """
    xp, x = unwrap(input)
    return _into(input, xp.where(x > 0, x, alpha * xp.expm1(xp.clip(x, None, 0) / alpha)), inplace)


def gelu(input: Any, approximate: str = "none") -> Array:
    """x·Φ(x), Φ the normal distribution's function; by tanh with `approximate="tanh"`.

    >>> import numpy as np
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

    >>> import numpy as np
    >>> sigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.119, 0.622, 0.953]
    """
    xp, x = unwrap(input)
    with np.errstate(over="ignore", under="ignore"):
        return 1 / (1 + xp.exp(-x))


def tanh(input: Any) -> Array:
    """The hyperbolic tangent.

    >>> import numpy as np
    >>> tanh(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.964, 0.462, 0.995]
    """
    xp, x = unwrap(input)
    return xp.tanh(x)


def silu(input: Any, inplace: bool = False) -> Array:
    """x·sigmoid(x).

    >>> import numpy as np
    >>> silu(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.238, 0.311, 2.858]
    """
    _, x = unwrap(input)
    return _into(input, x * sigmoid(x), inplace)


def mish(input: Any, inplace: bool = False) -> Array:
    """x·tanh(softplus(x)).

    >>> import numpy as np
    >>> mish(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.253, 0.375, 2.987]
    """
    xp, x = unwrap(input)
    return _into(input, x * xp.tanh(softplus(x)), inplace)


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above `threshold`.

    >>> import numpy as np
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

    >>> import numpy as np
    >>> logsigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.127, -0.474, -0.049]
    """
    xp, x = unwrap(input)
    with np.errstate(under="ignore"):
        return xp.clip(x, None, 0) - xp.log1p(xp.exp(-xp.abs(x)))


def softsign(input: Any) -> Array:
    """x / (1 + |x|).

    >>> import numpy as np
    >>> softsign(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.667, 0.333, 0.75]
    """
    xp, x = unwrap(input)
    return x / (1 + xp.abs(x))


def tanhshrink(input: Any) -> Array:
    """x - tanh(x).

    >>> import numpy as np
    >>> tanhshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.036, 0.038, 2.005]
    """
    xp, x = unwrap(input)
    return x - xp.tanh(x)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Array:
    """x, kept between min_val and max_val.

    >>> import numpy as np
    >>> hardtanh(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.0, 0.5, 1.0]
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    xp, x = unwrap(input)
    return _into(input, xp.clip(x, min_val, max_val), inplace)


def hardsigmoid(input: Any, inplace: bool = False) -> Array:
    """min(max(x + 3, 0), 6) / 6.

    >>> import numpy as np
    >>> hardsigmoid(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.167, 0.583, 1.0]
    """
    xp, x = unwrap(input)
    return _into(input, xp.clip(x + 3, 0, 6) / 6, inplace)


def hardswish(input: Any, inplace: bool = False) -> Array:
    """x·hardsigmoid(x).

    >>> import numpy as np
    >>> hardswish(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.333, 0.292, 3.0]
    """
    xp, x = unwrap(input)
    return _into(input, x * xp.clip(x + 3, 0, 6) / 6, inplace)


def hardshrink(input: Any, lambd: float = 0.5) -> Array:
    """x, and 0 where |x| is at most lambd.

    >>> import numpy as np
    >>> hardshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.0, 0.0, 3.0]
    """
    xp, x = unwrap(input)
    return xp.where(xp.abs(x) <= lambd, xp.zeros_like(x), x)


def softshrink(input: Any, lambd: float = 0.5) -> Array:
    """x moved towards 0 by lambd, and 0 within.

    >>> import numpy as np
    >>> softshrink(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.5, 0.0, 2.5]
    """
    xp, x = unwrap(input)
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return x - xp.clip(x, -lambd, lambd)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Array:
    """x where it is above `threshold`, `value` elsewhere.

    >>> import numpy as np
    >>> threshold(np.array([-2.0, 0.5, 3.0]), 1.0, 9.0).tolist()
    [9.0, 9.0, 3.0]
    """
    xp, x = unwrap(input)
    return _into(input, xp.where(x > threshold, x, xp.full_like(x, value)), inplace)


def glu(input: Any, dim: int = -1) -> Array:
    """The first half of dimension `dim` times the sigmoid of the second.

    >>> import numpy as np
    >>> glu(np.array([1.0, 2.0, 0.0, 0.0])).tolist()
    [0.5, 1.0]
    """
    _, x = unwrap(input)
    length = x.shape[dim]
    if length % 2:
        raise RuntimeError(f"Halving dimension must be even, but dimension {dim} is size {length}")
    before = (slice(None),) * (dim % x.ndim)
    return x[(*before, slice(0, length // 2), ...)] * sigmoid(x[(*before, slice(length // 2, None), ...)])


def softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Array:
    """exp(x) over its sum along `dim`; computed in `dtype` where that is given.

    >>> import numpy as np
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

    >>> import numpy as np
    >>> softmin(np.array([0.0, 1.0, 2.0]), -1).round(3).tolist()
    [0.665, 0.245, 0.09]
    """
    _, x = unwrap(input)
    return softmax(-x, _chosen(dim, "softmin", x.ndim, _stacklevel), dtype=dtype)


def log_softmax(input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Array:
    """log(softmax(x)), without the loss of small numbers.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, 1.0, 2.0]), -1).round(3).tolist()
    [-2.408, -1.408, -0.408]
    """
    xp, x = unwrap(input)
    axis = _chosen(dim, "log_softmax", x.ndim, _stacklevel)
    x = x if dtype is None else cast(x, dtype_of(dtype))
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    with np.errstate(under="ignore"):
        return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


def _into(place: Any, values: Array, inplace: bool) -> Array:
    if not inplace:
        return values
    put(place, values)
    return place


def _chosen(dim: int | None, name: str, dimensions: int, stacklevel: int) -> int:
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if dimensions in (0, 1, 3) else 1
