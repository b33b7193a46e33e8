"""Nonlinearities as layers; each is the function of the same name in `functional`."""

from __future__ import annotations

import warnings
from typing import Any

from .. import functional as F
from .. import init
from .._module import Module
from .._variable import raw
from ._new import parameter


class _InPlace(Module):
    """A nonlinearity whose only setting is whether it writes into its input."""

    inplace: bool

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class ReLU(_InPlace):
    """max(x, 0).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.ReLU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.relu(input, self.inplace)


class SELU(_InPlace):
    """The self-normalising elu.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.SELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.52, 0.525, 3.152]
    """

    def forward(self, input: Any) -> Any:
        return F.selu(input, self.inplace)


class SiLU(_InPlace):
    """x·sigmoid(x).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.SiLU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.238, 0.311, 2.858]
    """

    def forward(self, input: Any) -> Any:
        return F.silu(input, self.inplace)


class Mish(_InPlace):
    """x·tanh(softplus(x)).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Mish()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.253, 0.375, 2.987]
    """

    def forward(self, input: Any) -> Any:
        return F.mish(input, self.inplace)


class Hardswish(_InPlace):
    """x·hardsigmoid(x).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Hardswish()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.333, 0.292, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.hardswish(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardsigmoid(_InPlace):
    """min(max(x + 3, 0), 6) / 6.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Hardsigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.167, 0.583, 1.0]
    """

    def forward(self, input: Any) -> Any:
        return F.hardsigmoid(input, self.inplace)

    def extra_repr(self) -> str:
        return ""


class Hardtanh(Module):
    """x, kept between min_val and max_val.

    >>> import numpy as np
    >>> from statedict import nn
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
        return f"min_val={self.min_val}, max_val={self.max_val}{_also(self.inplace)}"


class ReLU6(Hardtanh):
    """min(max(x, 0), 6).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.ReLU6()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.0, 0.5, 3.0]
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x, and negative_slope·x where x is negative.

    >>> import numpy as np
    >>> from statedict import nn
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
        return f"negative_slope={self.negative_slope}{_also(self.inplace)}"


class PReLU(Module):
    """x, and weight·x where x is negative; one weight, or one a channel, `init` at first.

    >>> import numpy as np
    >>> from statedict import nn
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
        """Set new initial values."""
        init.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(Module):
    """x, and slope·x where x is negative; the slope is drawn in training, and the mean of the bounds in evaluation.

    >>> import numpy as np
    >>> from statedict import nn
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
        return f"lower={self.lower}, upper={self.upper}{_also(self.inplace)}"


class ELU(Module):
    """x, and alpha·(exp(x) - 1) where x is negative.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.ELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Any) -> Any:
        return F.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}{_also(self.inplace)}"


class CELU(ELU):
    """x, and alpha·(exp(x/alpha) - 1) where x is negative.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.CELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.celu(input, self.alpha, self.inplace)


class GELU(Module):
    """x·Φ(x), Φ the normal distribution's function; by tanh with `approximate="tanh"`.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.GELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.046, 0.346, 2.996]
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class GLU(Module):
    """The first half of dimension `dim` times the sigmoid of the second.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.GLU()(np.array([1.0, 2.0, 0.0, 0.0])).tolist()
    [0.5, 1.0]
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Any:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Threshold(Module):
    """x where it is above `threshold`, `value` elsewhere.

    >>> import numpy as np
    >>> from statedict import nn
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
        return f"threshold={self.threshold}, value={self.value}{_also(self.inplace)}"


class Softplus(Module):
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above `threshold`.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softplus()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.127, 0.974, 3.049]
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Any) -> Any:
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardshrink(Module):
    """x, and 0 where |x| is at most lambd.

    >>> import numpy as np
    >>> from statedict import nn
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
    """x moved towards 0 by lambd, and 0 within.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softshrink()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.5, 0.0, 2.5]
    """

    def forward(self, input: Any) -> Any:
        return F.softshrink(input, self.lambd)


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Sigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.119, 0.622, 0.953]
    """

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Tanh()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.964, 0.462, 0.995]
    """

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class LogSigmoid(Module):
    """log(sigmoid(x)).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.LogSigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.127, -0.474, -0.049]
    """

    def forward(self, input: Any) -> Any:
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softsign()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.667, 0.333, 0.75]
    """

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x).

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Tanhshrink()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.036, 0.038, 2.005]
    """

    def forward(self, input: Any) -> Any:
        return F.tanhshrink(input)


class _Over(Module):
    """A nonlinearity over one dimension."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Over):
    """exp(x) over its sum along `dim`.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softmax(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [0.09, 0.245, 0.665]
    """

    def forward(self, input: Any) -> Any:
        return F.softmax(input, self.dim, _stacklevel=5)


class Softmin(_Over):
    """softmax(-x) along `dim`.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softmin(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [0.665, 0.245, 0.09]
    """

    def forward(self, input: Any) -> Any:
        return F.softmin(input, self.dim, _stacklevel=5)


class LogSoftmax(_Over):
    """log(softmax(x)) along `dim`.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.LogSoftmax(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [-2.408, -1.408, -0.408]
    """

    def forward(self, input: Any) -> Any:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class Softmax2d(Module):
    """Softmax over the channels of (samples, channels, height, width), or without samples.

    >>> import numpy as np
    >>> from statedict import nn
    >>> nn.Softmax2d()(np.zeros((1, 4, 2, 2))).sum(1).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    def forward(self, input: Any) -> Any:
        if raw(input).ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {raw(input).ndim}D instead")
        return F.softmax(input, -3)


def _also(inplace: bool) -> str:
    return ", inplace=True" if inplace else ""
