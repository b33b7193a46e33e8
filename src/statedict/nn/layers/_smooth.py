"""Smooth activations as layers; each calls the function of the same name in `functional`."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .._module import Module
from ._in_place import InPlace, also


class SELU(InPlace):
    """The self-normalising elu.

    >>> nn.SELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.52, 0.525, 3.152]
    """

    def forward(self, input: Any) -> Any:
        return F.selu(input, self.inplace)


class SiLU(InPlace):
    """x·sigmoid(x).

    >>> nn.SiLU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.238, 0.311, 2.858]
    """

    def forward(self, input: Any) -> Any:
        return F.silu(input, self.inplace)


class Mish(InPlace):
    """x·tanh(softplus(x)).

    >>> nn.Mish()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.253, 0.375, 2.987]
    """

    def forward(self, input: Any) -> Any:
        return F.mish(input, self.inplace)


class ELU(Module):
    """x, and alpha·(exp(x) - 1) where x is negative.

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
        return f"alpha={self.alpha}{also(self.inplace)}"


class CELU(ELU):
    """x, and alpha·(exp(x/alpha) - 1) where x is negative.

    >>> nn.CELU()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.865, 0.5, 3.0]
    """

    def forward(self, input: Any) -> Any:
        return F.celu(input, self.alpha, self.inplace)


class GELU(Module):
    """x·Φ(x), with Φ the normal distribution function; `approximate="tanh"` uses tanh.

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


class Softplus(Module):
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above `threshold`.

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


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> nn.Sigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [0.119, 0.622, 0.953]
    """

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent.

    >>> nn.Tanh()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.964, 0.462, 0.995]
    """

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class LogSigmoid(Module):
    """log(sigmoid(x)).

    >>> nn.LogSigmoid()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-2.127, -0.474, -0.049]
    """

    def forward(self, input: Any) -> Any:
        return F.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|).

    >>> nn.Softsign()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-0.667, 0.333, 0.75]
    """

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x).

    >>> nn.Tanhshrink()(np.array([-2.0, 0.5, 3.0])).round(3).tolist()
    [-1.036, 0.038, 2.005]
    """

    def forward(self, input: Any) -> Any:
        return F.tanhshrink(input)
