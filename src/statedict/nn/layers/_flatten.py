"""Flatten and Unflatten: merge several dimensions, and split one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from .._arrays import unwrap
from .._module import Module


class Flatten(Module):
    """Merge dimensions `start_dim` to `end_dim`.

    >>> nn.Flatten()(np.zeros((2, 3, 4, 4))).shape
    (2, 48)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Any) -> Any:
        xp, x = unwrap(input)
        shape = tuple(x.shape) or (1,)
        start, end = self.start_dim % len(shape), self.end_dim % len(shape)
        return xp.reshape(x, (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Split dimension `dim` into dimensions of lengths `unflattened_size`; one of them may be -1.

    >>> nn.Unflatten(1, (3, 4))(np.zeros((2, 12))).shape
    (2, 3, 4)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise TypeError(f"dim must be an int, but got {type(dim).__name__}: named dimensions are not supported")
        if not isinstance(unflattened_size, (tuple, list)) or not all(isinstance(n, int) for n in unflattened_size):
            raise TypeError("unflattened_size must be a tuple of ints")
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Any) -> Any:
        xp, x = unwrap(input)
        dim = self.dim % x.ndim
        known = prod(n for n in self.unflattened_size if n != -1)
        sizes = [x.shape[dim] // known if n == -1 else n for n in self.unflattened_size]
        return xp.reshape(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"
