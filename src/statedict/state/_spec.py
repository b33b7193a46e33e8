"""Spec: dtype, shape, strides and offset of a tensor, known before its bytes are read.

Strides and offset are in elements, as in PyTorch. All numbers are Python integers, so products of sizes from a file cannot
overflow.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from ._dtype import DType


class Spec(NamedTuple):
    """The layout of a tensor in its storage.

    >>> from statedict.state import contiguous, dtype
    >>> spec = contiguous(dtype("float32"), (2, 3))
    >>> spec.strides, spec.numel, spec.nbytes, spec.is_contiguous
    ((3, 1), 6, 24, True)
    """

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the elements."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements are stored one after the other in row-major order. As in PyTorch, strides of dimensions of
        size 1 are ignored."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1:
                if stride != expected and 0 not in self.shape:
                    return False
                expected *= size
        return True

    @property
    def reach(self) -> int:
        """The number of storage elements that the tensor needs: the position of its last element plus one; 0 if empty."""
        if 0 in self.shape:
            return 0
        return self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides)) + 1

    def dense(self) -> Spec:
        """Return the spec of the same tensor, contiguous in its own storage."""
        return contiguous(self.dtype, self.shape)


def contiguous(dtype: DType, shape: Iterable[int], offset: int = 0) -> Spec:
    """Return the Spec of a row-major tensor."""
    shape = tuple(shape)
    return Spec(dtype, shape, contiguous_strides(shape), offset)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return row-major strides in elements, as PyTorch computes them (a dimension of size 0 counts as 1)."""
    if len(shape) == 1:
        return (1,)
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
