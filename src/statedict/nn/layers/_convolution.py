"""Convolutions over one, two and three dimensions, and their transposes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, ClassVar

from .. import functional as F
from .. import init
from .._module import Module
from .._variable import raw
from ..functional._convolution import same_padding
from ..functional._windows import expanded
from ._new import parameter

_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(Module):
    """The base of all convolutions: weight (outputs, channels / groups, *kernel) and bias, uniform within ±1/√inputs."""

    dimensions: ClassVar[int] = 0
    convolve: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = expanded(kernel_size, self.dimensions)
        self.stride = expanded(stride, self.dimensions)
        self.padding = padding if isinstance(padding, str) else expanded(padding, self.dimensions)
        self.dilation = expanded(dilation, self.dimensions)
        self.transposed = transposed
        self.output_padding = expanded(output_padding, self.dimensions)
        self.groups = groups
        self.padding_mode = padding_mode
        self._check_settings()
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        self.weight = parameter((first, second // groups, *self.kernel_size), device, dtype)
        self.register_parameter("bias", parameter(out_channels, device, dtype) if bias else None)
        self.reset_parameters()

    def _check_settings(self) -> None:
        if self.groups <= 0:
            raise ValueError("groups must be a positive integer")
        for name in ("in_channels", "out_channels"):
            if getattr(self, name) % self.groups:
                raise ValueError(f"{name} must be divisible by groups")
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {self.padding!r}, should be one of 'same', 'valid'")
            if self.padding == "same" and any(step != 1 for step in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if self.padding_mode not in _MODES:
            raise ValueError(f"padding_mode must be one of {_MODES}, but got padding_mode='{self.padding_mode}'")

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        init.kaiming_uniform_(self.weight, a=sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            bound = 1 / sqrt(fan_in) if fan_in > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Any) -> Any:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._around(), mode=self.padding_mode), 0
        return self.convolve(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _around(self) -> list[int]:
        """Return the padding in the order of `F.pad`."""
        if self.padding == "same":
            pairs = same_padding(self.kernel_size, self.dilation)
        elif isinstance(self.padding, str):
            pairs = [(0, 0)] * self.dimensions
        else:
            pairs = [(size, size) for size in self.padding]
        return [size for pair in reversed(pairs) for size in pair]

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        none = (0,) * self.dimensions
        parts += [f"padding={self.padding}"] * (self.padding != none)
        parts += [f"dilation={self.dilation}"] * (self.dilation != (1,) * self.dimensions)
        parts += [f"output_padding={self.output_padding}"] * (self.output_padding != none)
        parts += [f"groups={self.groups}"] * (self.groups != 1)
        parts += ["bias=False"] * (self.bias is None)
        parts += [f"padding_mode={self.padding_mode}"] * (self.padding_mode != "zeros")
        return ", ".join(parts)


class _Convolution(_ConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, False, 0, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip


class Conv1d(_Convolution):
    """Convolution over (samples, channels, length), or (channels, length).

    padding_mode: "zeros", "reflect", "replicate" or "circular"; padding: numbers, "same" or "valid".

    >>> nn.Conv1d(3, 6, 3)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 6, 6)
    """

    dimensions = 1
    convolve = staticmethod(F.conv1d)


class Conv2d(_Convolution):
    """Convolution over (samples, channels, height, width), or (channels, height, width); see Conv1d.

    >>> nn.Conv2d(3, 6, 5)(np.zeros((1, 3, 32, 32), np.float32)).shape
    (1, 6, 28, 28)
    """

    dimensions = 2
    convolve = staticmethod(F.conv2d)


class Conv3d(_Convolution):
    """Convolution over (samples, channels, depth, height, width), or without samples; see Conv1d.

    >>> nn.Conv3d(3, 6, 3)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 6, 6, 6, 6)
    """

    dimensions = 3
    convolve = staticmethod(F.conv3d)


class _ConvTranspose(_ConvNd):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, True, output_padding, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        more = self.output_padding if output_size is None else self._chosen(tuple(raw(input).shape), tuple(output_size))
        return self.convolve(input, self.weight, self.bias, self.stride, self.padding, more, self.groups, self.dilation)

    def _chosen(self, shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output padding for the requested lengths; ValueError if it does not exist."""
        lead = len(shape) - self.dimensions
        lengths = wanted[lead:] if len(wanted) == len(shape) else wanted
        if len(lengths) != self.dimensions:
            raise ValueError(
                f"ConvTranspose{self.dimensions}D: for {len(shape)}D input, output_size must have {self.dimensions} "
                f"or {len(shape)} elements (got {len(wanted)})"
            )
        # Only numbers: PyTorch's transposes do not support "same" and "valid" either.
        padding = expanded(self.padding, self.dimensions)
        least = [
            (length - 1) * s - 2 * p + d * (k - 1) + 1
            for length, s, p, d, k in zip(shape[lead:], self.stride, padding, self.dilation, self.kernel_size)
        ]
        most = [low + s - 1 for low, s in zip(least, self.stride)]
        if any(not low <= length <= high for low, length, high in zip(least, lengths, most)):
            raise ValueError(
                f"requested an output size of {list(lengths)}, but valid sizes range from {least} to {most} "
                f"(for an input of {list(shape[lead:])})"
            )
        return tuple(length - low for length, low in zip(lengths, least))


class ConvTranspose1d(_ConvTranspose):
    """The transpose of Conv1d as a linear map; weight is (in_channels, out_channels / groups, kernel).

    >>> nn.ConvTranspose1d(3, 6, 2, stride=2)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 6, 16)
    """

    dimensions = 1
    convolve = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """The transpose of Conv2d as a linear map; weight is (in_channels, out_channels / groups, *kernel).

    >>> nn.ConvTranspose2d(3, 6, 2, stride=2)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 6, 16, 16)
    """

    dimensions = 2
    convolve = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """The transpose of Conv3d as a linear map; weight is (in_channels, out_channels / groups, *kernel).

    >>> nn.ConvTranspose3d(3, 6, 2, stride=2)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 6, 16, 16, 16)
    """

    dimensions = 3
    convolve = staticmethod(F.conv_transpose3d)
