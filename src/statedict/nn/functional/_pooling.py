"""Pooling: the maximum, the mean or a norm of the elements in each window.

Theory of operation: a window is a product of intervals, so its maximum and its sum are taken one dimension after the
other, and along one dimension as an operation on `kernel` shifted slices of the whole array. These are kernel height plus
width operations on long rows; a reduction over each window would be many short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from .._arrays import Array, Namespace, asarray, dtype_of, unwrap
from ._padding import pad
from ._rectifiers import relu
from ._windows import expanded, positions


class _Axis(NamedTuple):
    """The windows along one dimension."""

    length: int
    kernel: int
    stride: int
    padding: int
    dilation: int
    places: int

    @property
    def missing(self) -> int:
        """Number of elements that the last window extends beyond the end; negative if it ends before."""
        return (self.places - 1) * self.stride + self.dilation * (self.kernel - 1) + 1 - self.length - self.padding


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element in each window along the last dimension.

    Args:
        input: (samples, channels, length) or (channels, length).
        kernel_size, stride, padding, dilation: integers; stride=None means kernel_size.
        ceil_mode: also use a last window that extends beyond the end.
        return_indices: return (values, positions in the input) instead of the values.

    >>> max_pool1d(np.array([[1.0, 3.0, 2.0, 0.0]]), 2).tolist()
    [[3.0, 2.0]]
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element in each window over the last two dimensions; see `max_pool1d`.

    >>> max_pool2d(np.zeros((2, 3, 8, 8)), 2).shape
    (2, 3, 4, 4)
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return the largest element in each window over the last three dimensions; see `max_pool1d`.

    >>> max_pool3d(np.zeros((2, 3, 8, 8, 8)), 2).shape
    (2, 3, 4, 4, 4)
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Return the mean of each window along the last dimension; padding counts as zeros unless `count_include_pad` is False.

    >>> avg_pool1d(np.zeros((2, 3, 8)), 2).shape
    (2, 3, 4)
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of each window over the last two dimensions; `divisor_override` replaces the number of elements.

    >>> avg_pool2d(np.zeros((2, 3, 8, 8)), 2).shape
    (2, 3, 4, 4)
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Return the mean of each window over the last three dimensions; see `avg_pool2d`.

    >>> avg_pool3d(np.zeros((2, 3, 8, 8, 8)), 2).shape
    (2, 3, 4, 4, 4)
    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Array:
    """Return the norm_type-norm of each window along the last dimension.

    >>> lp_pool1d(np.zeros((2, 3, 8)), 2.0, 2).shape
    (2, 3, 4)
    """
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Array:
    """Return the norm_type-norm of each window over the last two dimensions.

    >>> lp_pool2d(np.zeros((2, 3, 8, 8)), 2.0, 2).shape
    (2, 3, 4, 4)
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Array:
    """Return the norm_type-norm of each window over the last three dimensions.

    >>> lp_pool3d(np.zeros((2, 3, 8, 8, 8)), 2.0, 2).shape
    (2, 3, 4, 4, 4)
    """
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _max_pool(
    count: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    return_indices: bool,
) -> Any:
    xp, x = unwrap(input)
    axes = _axes(count, x, kernel_size, stride, padding, dilation, ceil_mode)
    around = [size for axis in reversed(axes) for size in (axis.padding, max(axis.missing, 0))]
    lengths = x.shape[x.ndim - count :]
    padded = pad(x, around, value=_lowest(x))
    if not return_indices:
        return _reduced(padded, axes, xp.maximum)
    numbers = pad(np.arange(prod(lengths)).reshape(lengths), around)
    numbers = xp.broadcast_to(asarray(x, numbers), padded.shape)
    return _reduced_with(xp, padded, numbers, axes)


def _avg_pool(
    count: int,
    input: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    _, x = unwrap(input)
    if divisor_override is not None and divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    axes = _axes(count, x, kernel_size, stride, padding, 1, ceil_mode)
    around = [size for axis in reversed(axes) for size in (axis.padding, max(axis.missing, 0))]
    sums = _reduced(pad(x, around), axes, lambda a, b: a + b)
    if divisor_override is not None:
        return sums / divisor_override
    for i, axis in enumerate(axes):
        counts = _counts(axis, count_include_pad)
        shape = (axis.places,) + (1,) * (count - 1 - i)
        same = counts.min() == counts.max()
        sums = sums / (float(counts[0]) if same else asarray(x, counts.astype(dtype_of(x.dtype).numpy).reshape(shape)))
    return sums


def _lp_pool(count: int, input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Array:
    xp, x = unwrap(input)
    kernel = expanded(kernel_size, count)
    means = _avg_pool(count, x**norm_type, kernel, stride, 0, ceil_mode, True, None)
    return (xp.sign(means) * relu(xp.abs(means)) * prod(kernel)) ** (1.0 / norm_type)


def _axes(
    count: int, x: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> list[_Axis]:
    if x.ndim not in (count + 1, count + 2):
        raise RuntimeError(
            f"pooling over {count} dimensions needs an input of {count + 1} or {count + 2}, not {x.ndim}"
        )
    kernel = expanded(kernel_size, count)
    # A stride of None or () means the kernel size.
    steps = kernel if stride is None or (isinstance(stride, Sequence) and not stride) else expanded(stride, count)
    axes = []
    for length, k, s, p, d in zip(
        x.shape[x.ndim - count :], kernel, steps, expanded(padding, count), expanded(dilation, count)
    ):
        if p < 0 or p > (d * (k - 1) + 1) // 2:
            raise RuntimeError(f"pad should be at most half of effective kernel size, but got pad={p}, kernel_size={k}")
        places = positions(length + 2 * p + (s - 1 if ceil_mode else 0), k, s, d)
        if ceil_mode and (places - 1) * s >= length + p:
            # The last window must start within the input or the padding before it.
            places -= 1
        if places < 1:
            raise RuntimeError(f"a window of {k} does not fit into a dimension of {length}: the output would be empty")
        axes.append(_Axis(length, k, s, p, d, places))
    return axes


def _slices(axis: int, lie: _Axis) -> list[tuple[Any, ...]]:
    """Yield, for each position in a window, the index of this element in all windows."""
    span = (lie.places - 1) * lie.stride + 1
    starts = range(0, lie.kernel * lie.dilation, lie.dilation)
    return [(*(slice(None),) * axis, slice(start, start + span, lie.stride), ...) for start in starts]


def _reduced(x: Array, axes: Sequence[_Axis], act: Callable[[Array, Array], Array]) -> Array:
    # The last dimension first: the result is shorter, and slices along the others are whole rows.
    for i in reversed(range(len(axes))):
        axis = x.ndim - len(axes) + i
        first, *rest = _slices(axis, axes[i])
        result = x[first]
        for index in rest:
            result = act(result, x[index])
        x = result
    return x


def _reduced_with(xp: Namespace, x: Array, numbers: Array, axes: Sequence[_Axis]) -> tuple[Array, Array]:
    """Return the largest elements and their indices; the first of equal ones in row-major order; NaN counts as largest."""
    for i in reversed(range(len(axes))):
        axis = x.ndim - len(axes) + i
        first, *rest = _slices(axis, axes[i])
        best, chosen = x[first], numbers[first]
        for index in rest:
            better = (x[index] > best) | (xp.isnan(x[index]) & ~xp.isnan(best))
            best, chosen = xp.where(better, x[index], best), xp.where(better, numbers[index], chosen)
        x, numbers = best, chosen
    return x, numbers


def _counts(axis: _Axis, count_include_pad: bool) -> np.ndarray[Any, Any]:
    """Return the number of elements in each window along a dimension."""
    starts = np.arange(axis.places) * axis.stride - axis.padding
    ends = np.minimum(starts + axis.kernel, axis.length + axis.padding)
    if count_include_pad:
        return ends - starts
    return np.minimum(ends, axis.length) - np.maximum(starts, 0)


def _lowest(x: Array) -> float:
    dtype = dtype_of(x.dtype)
    return float("-inf") if dtype.is_floating else int(np.iinfo(dtype.name).min)
