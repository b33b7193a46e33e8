"""Pooling layers: maximum, mean, norm, and adaptive versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from .. import functional as F
from .._module import Module

Pool = Callable[..., Any]


class _MaxPoolNd(Module):
    """The largest element in each window; with `return_indices` also its position."""

    pool: ClassVar[Pool]

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        return self.pool(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        )

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPoolNd):
    """The largest element in each window along the last dimension.

    >>> nn.MaxPool1d(2)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 4)
    """

    pool = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPoolNd):
    """The largest element in each window over the last two dimensions.

    >>> nn.MaxPool2d(2)(np.zeros((1, 6, 28, 28), np.float32)).shape
    (1, 6, 14, 14)
    """

    pool = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPoolNd):
    """The largest element in each window over the last three dimensions.

    >>> nn.MaxPool3d(2)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 4, 4, 4)
    """

    pool = staticmethod(F.max_pool3d)


class _AvgPoolNd(Module):
    """The mean of each window."""

    pool: ClassVar[Pool]
    divisor_override: int | None = None

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Any) -> Any:
        settings = (self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)
        return self.pool(input, *settings, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPoolNd):
    """The mean of each window along the last dimension; padding counts as zeros unless `count_include_pad` is False.

    >>> nn.AvgPool1d(2)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 4)
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.kernel_size, self.stride, self.padding = map(_single, (self.kernel_size, self.stride, self.padding))

    def forward(self, input: Any) -> Any:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool2d(_AvgPoolNd):
    """The mean of each window over the last two dimensions.

    >>> nn.AvgPool2d(2)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 4, 4)
    """

    pool = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPoolNd):
    """The mean of each window over the last three dimensions.

    >>> nn.AvgPool3d(2)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 4, 4, 4)
    """

    pool = staticmethod(F.avg_pool3d)


class _LPPoolNd(Module):
    """The norm_type-norm of each window."""

    pool: ClassVar[Pool]

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Any) -> Any:
        return self.pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPoolNd):
    """The norm_type-norm of each window along the last dimension.

    >>> nn.LPPool1d(2, kernel_size=2)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 4)
    """

    pool = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPoolNd):
    """The norm_type-norm of each window over the last two dimensions.

    >>> nn.LPPool2d(2, kernel_size=2)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 4, 4)
    """

    pool = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPoolNd):
    """The norm_type-norm of each window over the last three dimensions.

    >>> nn.LPPool3d(2, kernel_size=2)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 4, 4, 4)
    """

    pool = staticmethod(F.lp_pool3d)


class _AdaptivePoolNd(Module):
    """One result for each of `output_size` windows; None keeps a dimension."""

    pool: ClassVar[Pool]

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Any) -> Any:
        return self.pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePoolNd):
    """Means of `output_size` windows along the last dimension.

    >>> nn.AdaptiveAvgPool1d(5)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 5)
    """

    pool = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptivePoolNd):
    """Means of windows over the last two dimensions.

    >>> nn.AdaptiveAvgPool2d(5)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 5, 5)
    """

    pool = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptivePoolNd):
    """Means of windows over the last three dimensions.

    >>> nn.AdaptiveAvgPool3d(5)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 5, 5, 5)
    """

    pool = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPoolNd(_AdaptivePoolNd):
    """Largest elements of `output_size` windows; with `return_indices` also their positions."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, input: Any) -> Any:
        return self.pool(input, self.output_size, self.return_indices)


class AdaptiveMaxPool1d(_AdaptiveMaxPoolNd):
    """Largest elements of `output_size` windows along the last dimension.

    >>> nn.AdaptiveMaxPool1d(5)(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 5)
    """

    pool = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPoolNd):
    """Largest elements of windows over the last two dimensions.

    >>> nn.AdaptiveMaxPool2d(5)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 5, 5)
    """

    pool = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPoolNd):
    """Largest elements of windows over the last three dimensions.

    >>> nn.AdaptiveMaxPool3d(5)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 5, 5, 5)
    """

    pool = staticmethod(F.adaptive_max_pool3d)


def _single(value: Any) -> Any:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
