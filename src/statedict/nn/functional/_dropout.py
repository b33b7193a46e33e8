"""Dropout, with masks from the generator of `manual_seed`. With `training=False` they return the input."""

from __future__ import annotations

from typing import Any

from .._arrays import Array, asarray, cast, dtype_of, unwrap
from .._generator import generator
from ._in_place import into


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Set each element to zero with probability p, and divide the others by 1 - p.

    >>> dropout(np.ones(3), training=False).tolist()
    [1.0, 1.0, 1.0]
    """
    return _dropped(input, p, training, inplace, whole=0)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Set whole channels to zero with probability p; (samples, channels, length) or (channels, length).

    >>> dropout1d(np.zeros((2, 3, 8)), 0.5, training=False).shape
    (2, 3, 8)
    """
    return _dropped(input, p, training, inplace, whole=1)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Set whole channels to zero with probability p; (samples, channels, height, width).

    >>> dropout2d(np.zeros((2, 3, 8, 8)), 0.5, training=False).shape
    (2, 3, 8, 8)
    """
    return _dropped(input, p, training, inplace, whole=2)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Array:
    """Set whole channels to zero with probability p; (samples, channels, depth, height, width) or without samples.

    >>> dropout3d(np.zeros((2, 3, 8, 8, 8)), 0.5, training=False).shape
    (2, 3, 8, 8, 8)
    """
    return _dropped(input, p, training, inplace, whole=3)


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Array:
    """Dropout that preserves the mean and variance of the outputs of `selu`: Klambauer et al., 2017.

    >>> alpha_dropout(np.array([[1.0, 2.0]]), 0.5, training=False).tolist()
    [[1.0, 2.0]]
    """
    return _alpha_dropped(input, p, training, inplace, whole=0)


def feature_alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Array:
    """`alpha_dropout` of whole channels; (samples, channels, …).

    >>> feature_alpha_dropout(np.array([[1.0, 2.0]]), 0.5, training=False).tolist()
    [[1.0, 2.0]]
    """
    _, x = unwrap(input)
    return _alpha_dropped(input, p, training, inplace, whole=max(x.ndim - 2, 0))


def _dropped(input: Any, p: float, training: bool, inplace: bool, whole: int) -> Array:
    _check(p)
    _, x = unwrap(input)
    if not training or p == 0:
        return input if inplace else x
    kept = _kept(x, p, whole)
    return into(input, x * (kept * (1 / (1 - p)) if p < 1 else kept), inplace)


def _alpha_dropped(input: Any, p: float, training: bool, inplace: bool, whole: int) -> Array:
    _check(p)
    _, x = unwrap(input)
    if not training or p == 0:
        return input if inplace else x
    # selu(-inf) = -alpha·scale; a and b preserve mean 0 and variance 1.
    low = -1.7580993408473766
    kept = _kept(x, p, whole)
    if p == 1:
        return into(input, x * 0, inplace)
    a = ((1 - p) * (1 + p * low * low)) ** -0.5
    return into(input, a * (x * kept + low * (1 - kept)) - a * low * p, inplace)


def _kept(x: Array, p: float, whole: int) -> Array:
    """Return a mask in the input's dtype, 1 to keep an element; the last `whole` dimensions share one value."""
    shape = (*x.shape[: x.ndim - whole], *((1,) * whole))
    return cast(asarray(x, generator().random(shape) >= p), dtype_of(x.dtype))


def _check(p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
