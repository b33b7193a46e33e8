"""Softmax and similar functions as layers; each calls the function of the same name in `functional`."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .._module import Module
from .._variable import raw


class _Over(Module):
    """A function over one dimension."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_Over):
    """exp(x) divided by its sum along `dim`.

    >>> nn.Softmax(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [0.09, 0.245, 0.665]
    """

    def forward(self, input: Any) -> Any:
        return F.softmax(input, self.dim, _stacklevel=5)


class Softmin(_Over):
    """softmax(-x) along `dim`.

    >>> nn.Softmin(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [0.665, 0.245, 0.09]
    """

    def forward(self, input: Any) -> Any:
        return F.softmin(input, self.dim, _stacklevel=5)


class LogSoftmax(_Over):
    """log(softmax(x)) along `dim`.

    >>> nn.LogSoftmax(-1)(np.array([0.0, 1.0, 2.0])).round(3).tolist()
    [-2.408, -1.408, -0.408]
    """

    def forward(self, input: Any) -> Any:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class Softmax2d(Module):
    """Softmax over the channels of (samples, channels, height, width), or without samples.

    >>> nn.Softmax2d()(np.zeros((1, 4, 2, 2))).sum(1).tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """

    def forward(self, input: Any) -> Any:
        if raw(input).ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {raw(input).ndim}D instead")
        return F.softmax(input, -3)
