"""Dropout layers: the identity in evaluation; in training, masks from `manual_seed`'s generator."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .._module import Module


class _DropoutNd(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd):
    """In training, set each element to zero with probability p, and divide the others by 1 - p.

    >>> nn.Dropout(0.5).eval()(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    def forward(self, input: Any) -> Any:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_DropoutNd):
    """In training, set whole channels of (samples, channels, length) to zero with probability p.

    >>> nn.Dropout1d(0.5).eval()(np.zeros((2, 3, 8), np.float32)).shape
    (2, 3, 8)
    """

    def forward(self, input: Any) -> Any:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_DropoutNd):
    """In training, set whole channels of (samples, channels, height, width) to zero with probability p.

    >>> nn.Dropout2d(0.5).eval()(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 8, 8)
    """

    def forward(self, input: Any) -> Any:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_DropoutNd):
    """In training, set whole channels of (samples, channels, depth, height, width) to zero with probability p.

    >>> nn.Dropout3d(0.5).eval()(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 8, 8, 8)
    """

    def forward(self, input: Any) -> Any:
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_DropoutNd):
    """In training, dropout that preserves the mean and variance of SELU's outputs.

    >>> nn.AlphaDropout(0.5).eval()(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    def forward(self, input: Any) -> Any:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_DropoutNd):
    """AlphaDropout of whole channels.

    >>> nn.FeatureAlphaDropout(0.5).eval()(np.array([[1.0, 2.0]])).tolist()
    [[1.0, 2.0]]
    """

    def forward(self, input: Any) -> Any:
        return F.feature_alpha_dropout(input, self.p, self.training)
