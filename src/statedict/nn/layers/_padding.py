"""Padding layers: add a constant, or elements of the input, around the last one, two or three dimensions."""

from __future__ import annotations

from typing import Any, ClassVar

from .. import functional as F
from .._module import Module
from ..functional._windows import Sizes, expanded


class _PadNd(Module):
    dimensions: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding: Sizes = expanded(padding, 2 * self.dimensions)

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPadNd(_PadNd):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPadNd(_ConstantPadNd):
    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPadNd(_PadNd):
    mode = "reflect"


class _ReplicationPadNd(_PadNd):
    mode = "replicate"


class _CircularPadNd(_PadNd):
    mode = "circular"


class ConstantPad1d(_ConstantPadNd):
    """Pads the last dimension with `value`; `padding` as in `functional.pad`, or a number.

    >>> nn.ConstantPad1d(1, 9.0)(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[9.0, 1.0, 2.0, 3.0, 9.0]]
    """

    dimensions = 1


class ConstantPad2d(_ConstantPadNd):
    """Pads the last two dimensions with `value`; `padding` as in `functional.pad`, or a number.

    >>> nn.ConstantPad2d(1, 9.0)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 10, 10)
    """

    dimensions = 2


class ConstantPad3d(_ConstantPadNd):
    """Pads the last three dimensions with `value`; `padding` as in `functional.pad`, or a number.

    >>> nn.ConstantPad3d(1, 9.0)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 10, 10, 10)
    """

    dimensions = 3


class ZeroPad1d(_ZeroPadNd):
    """Pads the last dimension with zeros; `padding` as in `functional.pad`, or a number.

    >>> nn.ZeroPad1d(1)(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[0.0, 1.0, 2.0, 3.0, 0.0]]
    """

    dimensions = 1


class ZeroPad2d(_ZeroPadNd):
    """Pads the last two dimensions with zeros; `padding` as in `functional.pad`, or a number.

    >>> nn.ZeroPad2d(1)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 10, 10)
    """

    dimensions = 2


class ZeroPad3d(_ZeroPadNd):
    """Pads the last three dimensions with zeros; `padding` as in `functional.pad`, or a number.

    >>> nn.ZeroPad3d(1)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 10, 10, 10)
    """

    dimensions = 3


class ReflectionPad1d(_ReflectionPadNd):
    """Pads the last dimension with the input mirrored at its ends; `padding` as in `functional.pad`, or a number.

    >>> nn.ReflectionPad1d(1)(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[2.0, 1.0, 2.0, 3.0, 2.0]]
    """

    dimensions = 1


class ReflectionPad2d(_ReflectionPadNd):
    """Pads the last two dimensions with the input mirrored at its ends; `padding` as in `functional.pad`, or a number.

    >>> nn.ReflectionPad2d(1)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 10, 10)
    """

    dimensions = 2


class ReflectionPad3d(_ReflectionPadNd):
    """Pads the last three dimensions with the input mirrored at its ends; `padding` as in `functional.pad`, or a number.

    >>> nn.ReflectionPad3d(1)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 10, 10, 10)
    """

    dimensions = 3


class ReplicationPad1d(_ReplicationPadNd):
    """Pads the last dimension with the input's end elements; `padding` as in `functional.pad`, or a number.

    >>> nn.ReplicationPad1d(1)(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, 1.0, 2.0, 3.0, 3.0]]
    """

    dimensions = 1


class ReplicationPad2d(_ReplicationPadNd):
    """Pads the last two dimensions with the input's end elements; `padding` as in `functional.pad`, or a number.

    >>> nn.ReplicationPad2d(1)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 10, 10)
    """

    dimensions = 2


class ReplicationPad3d(_ReplicationPadNd):
    """Pads the last three dimensions with the input's end elements; `padding` as in `functional.pad`, or a number.

    >>> nn.ReplicationPad3d(1)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 10, 10, 10)
    """

    dimensions = 3


class CircularPad1d(_CircularPadNd):
    """Pads the last dimension with the input wrapped around; `padding` as in `functional.pad`, or a number.

    >>> nn.CircularPad1d(1)(np.array([[1.0, 2.0, 3.0]])).tolist()
    [[3.0, 1.0, 2.0, 3.0, 1.0]]
    """

    dimensions = 1


class CircularPad2d(_CircularPadNd):
    """Pads the last two dimensions with the input wrapped around; `padding` as in `functional.pad`, or a number.

    >>> nn.CircularPad2d(1)(np.zeros((2, 3, 8, 8), np.float32)).shape
    (2, 3, 10, 10)
    """

    dimensions = 2


class CircularPad3d(_CircularPadNd):
    """Pads the last three dimensions with the input wrapped around; `padding` as in `functional.pad`, or a number.

    >>> nn.CircularPad3d(1)(np.zeros((2, 3, 8, 8, 8), np.float32)).shape
    (2, 3, 10, 10, 10)
    """

    dimensions = 3
