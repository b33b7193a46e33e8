"""Piecewise linear activations as layers; each calls the function of the same name in `functional`."""

from __future__ import annotations

import warnings
from typing import Any

from .. import functional as F
from .. import init
from .._module import Module
from ._in_place import InPlace, also
from ._new import parameter


class ReLU(InPlace):
    """max(x, 0).

    >>> nn.ReLU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.relu(input, self.inplace)


class Hardswish(InPlace):
    """x·hardsigmoid(x).

    >>> nn.Hardswish()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.333, 0.292, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardsigmoid(InPlace):
    """min(max(x + 3, 0), 6) / 6.

    >>> nn.Hardsigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.167, 0.583, 1.0]
    """

    def forward(self, input: Any) -> Any:
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardtanh(Module):
    """x, clipped to min_val and max_val.

    >>> nn.Hardtanh()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.0, 0.5, 1.0]
    """

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        super().__init__()
        for name, old in (("min", min_value), ("max", max_value)):
            if old is not None:
                warnings.warn(
                    f"keyword argument `{name}_value` is deprecated and rename to `{name}_val`",
                    FutureWarning,
                    stacklevel=2,
                )
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if not self.max_val > self.min_val:
            raise AssertionError("max_val must be larger than min_val")

    def forward(self, input: Any) -> Any:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}{also(self.inplace)}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6).

    >>> nn.ReLU6()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x, and negative_slope·x where x is negative.

    >>> nn.LeakyReLU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.02, 0.5, 3.0]
    """

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}{also(self.inplace)}"


class PReLU(Module):
    """x, and weight·x where x is negative; one weight, or one per channel, initially `init`.

    >>> nn.PReLU()(np.array([-2.0, 3.0], np.float32)).tolist()
    [-0.5, 3.0]
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = parameter(num_parameters, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x, and slope·x where x is negative; the slope is random in training, and the mean of the bounds in evaluation.

    >>> nn.RReLU().eval()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.458, 0.5, 3.0]
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}{also(self.inplace)}"


class Threshold(Module):
    """x where it is above `threshold`, `value` elsewhere.

    >>> nn.Threshold(1.0, 9.0)(np.array([-2.0, 0.5, 3.0])).tolist()
    [9.0, 9.0, 3.0]
    """

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return F.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}{also(self.inplace)}"


class Hardshrink(Module):
    """x, and 0 where |x| is at most lambd.

    >>> nn.Hardshrink()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.0, 0.0, 3.0]
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Any) -> Any:
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd; 0 where |x| is at most lambd.

    >>> nn.Softshrink()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.5, 0.0, 2.5]
    """

    def forward(self, input: Any) -> Any:
        return F.softshrink(input, self.lambd)
