"""BatchNorm and InstanceNorm: normalisation by each channel's mean and variance, optionally tracked in buffers."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from .. import init
from .._arrays import put
from .._module import Module
from .._parameter import Buffer
from .._variable import raw
from ._new import buffer, parameter


class NormBase(Module):
    """The weight and bias (initially 1 and 0), and the buffers running_mean, running_var and num_batches_tracked."""

    _version = 2
    # Allowed numbers of input dimensions, in words and as numbers.
    shapes: ClassVar[tuple[str, tuple[int, ...]]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.register_parameter("weight", parameter(num_features, device, dtype) if affine else None)
        self.register_parameter("bias", parameter(num_features, device, dtype) if affine and bias else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", buffer(num_features, 0, device, dtype) if tracked else None)
        self.register_buffer("running_var", buffer(num_features, 1, device, dtype) if tracked else None)
        self.register_buffer("num_batches_tracked", Buffer(np.zeros((), np.int64)) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Reset the tracked statistics."""
        if self.track_running_stats:
            put(self.running_mean, 0)
            put(self.running_var, 1)
            put(self.num_batches_tracked, 0)

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def _check_input_dim(self, input: Any) -> None:
        words, numbers = self.shapes
        if raw(input).ndim not in numbers:
            raise ValueError(f"expected {words} input (got {raw(input).ndim}D input)")

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any, *lists: Any
    ) -> None:
        # Version 2 added num_batches_tracked; for older states the module's own value is used.
        name = f"{prefix}num_batches_tracked"
        if (local_metadata.get("version") or 0) < 2 and self.track_running_stats and name not in state_dict:
            own = self.num_batches_tracked
            state_dict[name] = np.zeros((), np.int64) if own is None else raw(own)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *lists)


class BatchNormBase(NormBase):
    def forward(self, input: Any) -> Any:
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            put(self.num_batches_tracked, raw(self.num_batches_tracked) + 1)
            if self.momentum is None:
                # The mean of all batches so far.
                momentum = 1.0 / float(raw(self.num_batches_tracked))
        own = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            own,
            momentum,
            self.eps,
        )


class BatchNorm1d(BatchNormBase):
    """(samples, channels) or (samples, channels, length), normalised by each channel's mean and variance.

    Training uses the statistics of the batch, and tracks them in running_mean and running_var, which evaluation uses.

    >>> nn.BatchNorm1d(3)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 8)
    """

    shapes = ("2D or 3D", (2, 3))


class BatchNorm2d(BatchNormBase):
    """(samples, channels, height, width), normalised by each channel's mean and variance; see BatchNorm1d.

    >>> nn.BatchNorm2d(3)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 8, 8)
    """

    shapes = ("4D", (4,))


class BatchNorm3d(BatchNormBase):
    """(samples, channels, depth, height, width), normalised by each channel's mean and variance; see BatchNorm1d.

    >>> nn.BatchNorm3d(3)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 8, 8, 8)
    """

    shapes = ("5D", (5,))


class InstanceNormBase(NormBase):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: Any,
    ) -> None:
        # Before version 1, running statistics were tracked by default.
        if local_metadata.get("version") is None and not self.track_running_stats:
            found = [f"{prefix}{name}" for name in ("running_mean", "running_var") if f"{prefix}{name}" in state_dict]
            if found:
                error_msgs.append(_too_old(found, type(self).__name__))
                for name in found:
                    del state_dict[name]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def forward(self, input: Any) -> Any:
        self._check_input_dim(input)
        x = raw(input)
        alone = min(self.shapes[1])
        channels = x.ndim - alone
        if x.shape[channels] != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={channels} to match num_features ({self.num_features}), "
                    f"but got: {x.shape[channels]}."
                )
            warnings.warn(
                f"input's size at dim={channels} does not match num_features. You can silence this warning by not "
                "passing in num_features, which is not used because affine=False",
                stacklevel=3,
            )
        return self._normalized(x[None, ...])[0, ...] if x.ndim == alone else self._normalized(x)

    def _normalized(self, x: Any) -> Any:
        return F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )


class InstanceNorm1d(InstanceNormBase):
    """(samples, channels, length), or without samples, normalised by the mean and variance of each sample's channels.

    >>> nn.InstanceNorm1d(3)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 8)
    """

    shapes = ("2D or 3D", (2, 3))


class InstanceNorm2d(InstanceNormBase):
    """(samples, channels, height, width), or without samples; see InstanceNorm1d.

    >>> nn.InstanceNorm2d(3)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 8, 8)
    """

    shapes = ("3D or 4D", (3, 4))


class InstanceNorm3d(InstanceNormBase):
    """(samples, channels, depth, height, width), or without samples; see InstanceNorm1d.

    >>> nn.InstanceNorm3d(3)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 8, 8, 8)
    """

    shapes = ("4D or 5D", (4, 5))


def _too_old(names: list[str], kind: str) -> str:
    """Return the text of PyTorch's error."""
    listed = " and ".join(f'"{name}"' for name in names)
    return (
        f"Unexpected running stats buffer(s) {listed} for {kind} with "
        "track_running_stats=False. If state_dict is a checkpoint saved before 0.4.0, this may be expected because "
        f"{kind} does not track running stats by default since 0.4.0. Please remove these keys from state_dict. If the "
        f"running stats are actually needed, instead set track_running_stats=True in {kind} to enable them. See the "
        f"documentation of {kind} for details."
    )
