"""What is known of a tensor before any of its bytes are read: dtype, shape, strides, offset.

Strides and offset count elements, as PyTorch's do. All numbers are exact Python ints, so that a product of claimed sizes
cannot wrap around.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import NamedTuple

from ._dtype import DType


class Spec(NamedTuple):
    """How a tensor lies in its storage.

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
        """Elements that the tensor shows."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements that the tensor shows."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie one after the other in row-major order (as PyTorch: strides of size-1 dimensions
        do not count)."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1:
                if stride != expected and 0 not in self.shape:
                    return False
                expected *= size
        return True

    @property
    def reach(self) -> int:
        """Elements of storage that the tensor needs: one more than the last element's position; 0 for an empty one."""
        if 0 in self.shape:
            return 0
        return self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides)) + 1

    def dense(self) -> Spec:
        """The same tensor laid out contiguously in a storage of its own."""
        return contiguous(self.dtype, self.shape)


def contiguous(dtype: DType, shape: Iterable[int], offset: int = 0) -> Spec:
    """The Spec of a row-major tensor."""
    shape = tuple(shape)
    return Spec(dtype, shape, contiguous_strides(shape), offset)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements, PyTorch's (a dimension of size 0 counts as 1)."""
    if len(shape) == 1:
        return (1,)
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
