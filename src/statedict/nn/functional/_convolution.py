"""Convolutions, as one matrix product of the weight and the columns of window contents.

Theory of operation: the columns are (channels · window, samples · positions), so that copying them runs along a row of
the image, and the product's rows are the output's channels. On two cores this is as fast as PyTorch's convolutions
if the product is large (kernel 64, 128 to 1024 channels: 0.5 to 1.1 of its time), and half as fast for 3×3 on one image.
Samples are combined only until their columns fill a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .._arrays import Array, Namespace, full, unwrap
from ._padding import pad
from ._windows import Sizes, expanded, positions, windows

# About this many bytes of columns at a time: beyond the last cache, the copy costs more than a larger product saves.
# But at least this many positions: with fewer, reading the weight again for each part costs more.
_COLUMN_BYTES = 16 << 20
_POSITIONS = 512


def conv1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Array:
    """Convolution over (samples, channels, length), or (channels, length).

    Args:
        input: (samples, channels, length).
        weight: (outputs, channels / groups, kernel).
        bias: (outputs,) or None.
        stride, padding, dilation: integers; padding can also be "valid" or "same".
        groups: the number of groups of channels, each with its own outputs.

    Returns:
        (samples, outputs, positions).

    >>> conv1d(np.ones((1, 1, 5)), np.ones((1, 1, 3))).tolist()
    [[[3.0, 3.0, 3.0]]]
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Array:
    """Convolution over (samples, channels, height, width), or (channels, height, width); see `conv1d`.

    >>> conv2d(np.zeros((2, 3, 8, 8)), np.zeros((6, 3, 3, 3))).shape
    (2, 6, 6, 6)
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Array:
    """Convolution over (samples, channels, depth, height, width), or without samples; see `conv1d`.

    >>> conv3d(np.zeros((2, 3, 8, 8, 8)), np.zeros((6, 3, 3, 3, 3))).shape
    (2, 6, 6, 6, 6)
    """
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Array:
    """The transpose of `conv1d` as a linear map: weight is (channels, outputs / groups, kernel).

    >>> conv_transpose1d(np.zeros((2, 3, 8)), np.zeros((3, 6, 2)), stride=2).shape
    (2, 6, 16)
    """
    return _convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Array:
    """The transpose of `conv2d` as a linear map: weight is (channels, outputs / groups, *kernel).

    >>> conv_transpose2d(np.zeros((2, 3, 8, 8)), np.zeros((3, 6, 2, 2)), stride=2).shape
    (2, 6, 16, 16)
    """
    return _convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Array:
    """The transpose of `conv3d` as a linear map: weight is (channels, outputs / groups, *kernel).

    >>> conv_transpose3d(np.zeros((2, 3, 8, 8, 8)), np.zeros((3, 6, 2, 2, 2)), stride=2).shape
    (2, 6, 16, 16, 16)
    """
    return _convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def same_padding(kernel: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """Return (before, after) for each dimension that keep the lengths at stride 1; if they differ, `after` is larger."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
    return [(total // 2, total - total // 2) for total in totals]


def _convolve(
    count: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Array:
    xp, x, weight, bias = unwrap(input, weight, bias)
    kernel = tuple(weight.shape[2:])
    stride, dilation = expanded(stride, count), expanded(dilation, count)
    if x.ndim == count + 1:
        return _convolve(count, x[None, ...], weight, bias, stride, padding, dilation, groups)[0, ...]
    _check(count, x, weight, groups, weight.shape[1] * groups)
    x = pad(x, _spread(_padding(padding, kernel, stride, dilation)))
    if any(positions(*sizes) < 1 for sizes in zip(x.shape[2:], kernel, stride, dilation)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, x.shape[2:]))}). Kernel size: "
            f"({' x '.join(map(str, kernel))}). Kernel size can't be greater than actual input size"
        )
    output = _in_parts(xp, x, weight, stride, dilation, groups)
    if bias is not None:
        output += xp.reshape(bias, (-1,) + (1,) * count)
    return output


def _in_parts(xp: Namespace, x: Array, weight: Array, stride: Sizes, dilation: Sizes, groups: int) -> Array:
    places = prod(map(positions, x.shape[2:], weight.shape[2:], stride, dilation))
    bytes_a_sample = 4 * x.shape[1] * prod(weight.shape[2:]) * places
    together = max(_COLUMN_BYTES // max(bytes_a_sample, 1), -(-_POSITIONS // places), 1)
    if together >= x.shape[0]:
        return _product(xp, x, weight, stride, dilation, groups)
    parts = [x[start : start + together, ...] for start in range(0, x.shape[0], together)]
    return xp.concat([_product(xp, part, weight, stride, dilation, groups) for part in parts], axis=0)


def _product(xp: Namespace, x: Array, weight: Array, stride: Sizes, dilation: Sizes, groups: int) -> Array:
    kernel, outputs, inner = tuple(weight.shape[2:]), weight.shape[0], prod(weight.shape[1:])
    seen = windows(xp, x, kernel, stride, dilation)
    count, samples = len(kernel), x.shape[0]
    places = tuple(seen.shape[2 : 2 + count])
    order = (1, *range(2 + count, 2 + 2 * count), 0, *range(2, 2 + count))
    columns = xp.reshape(xp.permute_dims(seen, order), (groups, inner, samples * prod(places)))
    output = xp.reshape(weight, (groups, outputs // groups, inner)) @ columns
    return xp.permute_dims(xp.reshape(output, (outputs, samples, *places)), (1, 0, *range(2, 2 + count)))


def _convolve_transposed(
    count: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Array:
    """Compute it as a convolution: insert zeros between the elements of the input, and flip the kernel."""
    xp, x, weight, bias = unwrap(input, weight, bias)
    stride, padding, dilation = expanded(stride, count), expanded(padding, count), expanded(dilation, count)
    more, kernel = expanded(output_padding, count), tuple(weight.shape[2:])
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")
    if x.ndim == count + 1:
        one = x[None, ...]
        return _convolve_transposed(count, one, weight, bias, stride, padding, more, groups, dilation)[0, ...]
    _check(count, x, weight, groups, weight.shape[0])
    reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
    around = [(r - p, r - p + m) for r, p, m in zip(reach, padding, more)]
    x = pad(_apart(xp, x, stride), _spread(around))
    channels, outputs = weight.shape[0] // groups, weight.shape[1]
    grouped = xp.reshape(weight, (groups, channels, outputs, *kernel))
    turned = xp.flip(xp.permute_dims(grouped, (0, 2, 1, *range(3, 3 + count))), axis=tuple(range(3, 3 + count)))
    turned = xp.reshape(turned, (groups * outputs, channels, *kernel))
    return _convolve(count, x, turned, bias, 1, 0, dilation, groups)


def _apart(xp: Namespace, x: Array, stride: Sizes) -> Array:
    """Insert zeros between the elements, so that their distance is `stride`."""
    for axis, step in enumerate(stride, start=2):
        if step > 1:
            zeros = full(x, (*x.shape[: axis + 1], step - 1, *x.shape[axis + 1 :]), 0)
            wide = xp.concat([xp.expand_dims(x, axis=axis + 1), zeros], axis=axis + 1)
            length = x.shape[axis] * step
            x = xp.reshape(wide, (*x.shape[:axis], length, *x.shape[axis + 1 :]))
            x = x[(slice(None),) * axis + (slice(0, length - step + 1), ...)]
    return x


def _padding(padding: Any, kernel: Sizes, stride: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    if not isinstance(padding, str):
        return [(p, p) for p in expanded(padding, len(kernel))]
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    return same_padding(kernel, dilation)


def _spread(around: Sequence[tuple[int, int]]) -> list[int]:
    """Return (before, after) of each dimension in the order of `pad`."""
    return [size for pair in reversed(around) for size in pair]


def _check(count: int, x: Array, weight: Array, groups: int, channels: int) -> None:
    if x.ndim != count + 2:
        raise RuntimeError(
            f"Expected {count + 1}D (unbatched) or {count + 2}D (batched) input to conv{count}d, "
            f"but got input of size: {list(x.shape)}"
        )
    if x.shape[1] != channels:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(weight.shape)}, expected input{list(x.shape)} "
            f"to have {channels} channels, but got {x.shape[1]} channels instead"
        )
