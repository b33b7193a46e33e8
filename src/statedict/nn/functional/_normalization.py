"""Normalisation: over the batch, over channels, over the last dimensions, over groups of channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .._arrays import Array, Namespace, put, unwrap
from ._padding import pad
from ._pooling import avg_pool1d


def batch_norm(
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Array:
    """(input - mean) / √(variance + eps) · weight + bias, for each channel (dimension 1).

    Args:
        input: (samples, channels, …).
        running_mean, running_var: (channels,). The mean and variance if `training` is False. Otherwise those of the batch
            are used, and these are updated in place with `momentum`, unless they are None.
        weight, bias: (channels,) or None.

    >>> batch_norm(np.ones((1, 2)), np.zeros(2), np.ones(2), eps=0.0).tolist()
    [[1.0, 1.0]]
    """
    xp, x, weight, bias = unwrap(input, weight, bias)
    if 0 in x.shape:
        return x
    if training:
        _check_values(x)
        axes = (0, *range(2, x.ndim))
        mean, variance = xp.mean(x, axis=axes), xp.var(x, axis=axes)
        if running_mean is not None:
            count = prod(x.shape) // x.shape[1]
            _track(running_mean, mean, momentum)
            _track(running_var, variance * (count / (count - 1)), momentum)
    else:
        _, mean, variance = unwrap(running_mean, running_var)
    scale = 1 / xp.sqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return x * xp.reshape(scale, shape) + xp.reshape(shift, shape)


def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Array:
    """Like `batch_norm`, but with the mean and variance of each sample's channels; (samples, channels, …).

    >>> instance_norm(np.array([[[1.0, 3.0]]])).round(3).tolist()
    [[[-1.0, 1.0]]]
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    xp, x, weight, bias = unwrap(input, weight, bias)
    axes = tuple(range(2, x.ndim))
    count = prod(x.shape[2:])
    if count == 1:
        raise ValueError(f"Expected more than 1 spatial element when training, got input size {_size(x)}")
    mean, variance = xp.mean(x, axis=axes, keepdims=True), xp.var(x, axis=axes, keepdims=True)
    if running_mean is not None:
        _track(running_mean, xp.mean(xp.reshape(mean, x.shape[:2]), axis=0), momentum)
        unbiased = xp.reshape(variance, x.shape[:2]) * (count / (count - 1))
        _track(running_var, xp.mean(unbiased, axis=0), momentum)
    return _scaled((x - mean) / xp.sqrt(variance + eps), weight, bias, (1, -1) + (1,) * (x.ndim - 2))


def layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-05
) -> Array:
    """(input - mean) / √(variance + eps) · weight + bias, over the last dimensions, whose lengths are `normalized_shape`.

    >>> layer_norm(np.array([[1.0, 2.0, 3.0]]), (3,)).round(3).tolist()
    [[-1.225, 0.0, 1.225]]
    """
    xp, x, weight, bias = unwrap(input, weight, bias)
    axes = _last(x, normalized_shape)
    centred = x - xp.mean(x, axis=axes, keepdims=True)
    variance = xp.mean(centred * centred, axis=axes, keepdims=True)
    return _scaled(centred / xp.sqrt(variance + eps), weight, bias, None)


def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Array:
    """input / √(mean of squares + eps) · weight, over the last dimensions; eps=None uses the dtype's epsilon.

    >>> rms_norm(np.array([[3.0, 3.0]]), (2,)).round(3).tolist()
    [[1.0, 1.0]]
    """
    xp, x, weight = unwrap(input, weight)
    axes = _last(x, normalized_shape)
    small = float(xp.finfo(x.dtype).eps) if eps is None else eps
    return _scaled(x / xp.sqrt(xp.mean(x * x, axis=axes, keepdims=True) + small), weight, None, None)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-05) -> Array:
    """(input - mean) / √(variance + eps) · weight + bias, over groups of channels; (samples, channels, …).

    >>> group_norm(np.array([[[1.0], [3.0], [5.0], [5.0]]]), 2).round(3).tolist()
    [[[-1.0], [1.0], [0.0], [0.0]]]
    """
    xp, x, weight, bias = unwrap(input, weight, bias)
    if x.ndim < 2 or x.shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(x.shape)} and num_groups={num_groups}"
        )
    grouped = xp.reshape(x, (x.shape[0], num_groups, prod(x.shape[1:]) // num_groups))
    centred = grouped - xp.mean(grouped, axis=-1, keepdims=True)
    variance = xp.mean(centred * centred, axis=-1, keepdims=True)
    normal = xp.reshape(centred / xp.sqrt(variance + eps), x.shape)
    return _scaled(normal, weight, bias, (1, -1) + (1,) * (x.ndim - 2))


def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """input / (k + alpha · mean of squares over `size` neighbouring channels) ** beta; (samples, channels, …).

    >>> local_response_norm(np.zeros((2, 6, 8)), 2).shape
    (2, 6, 8)
    """
    xp, x = unwrap(input)
    if x.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)")
    squares = xp.permute_dims(xp.reshape(x * x, (x.shape[0], x.shape[1], prod(x.shape[2:]))), (0, 2, 1))
    means = avg_pool1d(pad(squares, (size // 2, (size - 1) // 2)), size, stride=1)
    return x / (xp.reshape(xp.permute_dims(means, (0, 2, 1)), x.shape) * alpha + k) ** beta


def normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Array:
    """Divide the input by its p-norm along `dim` (or by eps, if that is larger).

    >>> normalize(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    xp, x = unwrap(input)
    result = x / xp.clip(_norm(xp, x, p, dim), eps, None)
    if out is None:
        return result
    put(out, result)
    return out


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Array:
    """Return the cosine of the angle between two arrays along `dim`; norms below eps are replaced by eps.

    >>> cosine_similarity(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(3).tolist()
    [0.707]
    """
    xp, a, b = unwrap(x1, x2)
    a, b = xp.broadcast_arrays(a, b)
    norms = [xp.clip(_norm(xp, x, 2.0, dim), eps, None) for x in (a, b)]
    return xp.sum((a / norms[0]) * (b / norms[1]), axis=dim)


def _norm(xp: Namespace, x: Array, p: float, dim: Any) -> Array:
    if p == 2:
        return xp.sqrt(xp.sum(x * x, axis=dim, keepdims=True))
    if p == float("inf"):
        return xp.max(xp.abs(x), axis=dim, keepdims=True)
    return xp.sum(xp.abs(x) ** p, axis=dim, keepdims=True) ** (1 / p)


def _scaled(x: Array, weight: Any, bias: Any, shape: tuple[int, ...] | None) -> Array:
    xp, x, weight, bias = unwrap(x, weight, bias)
    if weight is not None:
        x = x * (weight if shape is None else xp.reshape(weight, shape))
    if bias is not None:
        x = x + (bias if shape is None else xp.reshape(bias, shape))
    return x


def _last(x: Array, normalized_shape: Sequence[int]) -> tuple[int, ...]:
    shape = tuple(normalized_shape)
    if tuple(x.shape[x.ndim - len(shape) :]) != shape or len(shape) > x.ndim:
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[*{''.join(f', {n}' for n in shape)}], but got input of size{list(x.shape)}"
        )
    return tuple(range(-len(shape), 0))


def _track(place: Any, value: Array, momentum: float) -> None:
    _, kept = unwrap(place)
    put(place, kept * (1 - momentum) + value * momentum)


def _check_values(x: Array) -> None:
    if prod(x.shape) // max(x.shape[1], 1) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {_size(x)}")


def _size(x: Array) -> str:
    return f"torch.Size({list(x.shape)})"
