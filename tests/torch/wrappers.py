"""Small tensor classes that wrap others, as quantisation libraries have them."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing


class Rounding(enum.Enum):
    NEAREST = 1
    DOWN = 2

    def __reduce_ex__(self, protocol):
        """As CPython has it from 3.11.4 on; before, 3.11 wrote `getattr(Rounding, name)`."""
        return type(self), (self.value,)


@dataclass
class Scheme:
    """Settings of a quantisation, as torchao keeps them with a tensor."""

    bits: int
    rounding: Rounding
    limits: tuple[float, ...] = (float("-inf"), float("inf"))


class Wrapper(torch.Tensor):
    """A tensor of other tensors; subclasses name its parts and its settings."""

    PARTS: tuple[str, ...] = ()
    SETTINGS: tuple[str, ...] = ()

    @staticmethod
    def __new__(cls, *args):
        first = args[0]
        return torch.Tensor._make_wrapper_subclass(cls, first.shape, dtype=torch.float32, device=first.device)

    def __init__(self, *args):
        for name, value in zip((*self.PARTS, *self.SETTINGS), args):
            setattr(self, name, value)

    def __tensor_flatten__(self):
        return list(self.PARTS), tuple(getattr(self, name) for name in self.SETTINGS)

    @classmethod
    def __tensor_unflatten__(cls, inner, context, outer_size, outer_stride):
        return cls(*(inner[name] for name in cls.PARTS), *context)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.detach.default:
            names, context = args[0].__tensor_flatten__()
            parts = {name: getattr(args[0], name).detach() for name in names}
            made = type(args[0]).__tensor_unflatten__(parts, context, None, None)
            return return_and_correct_aliasing(function, args, kwargs or {}, made)
        raise NotImplementedError(f"{cls.__name__} has no {function}")


class Scaled(Wrapper):
    """Integers with a scale."""

    PARTS = ("data8", "scale")
    SETTINGS = ("scheme", "stored")


class Pair(Wrapper):
    """Two tensors, of which the first wraps others itself."""

    PARTS = ("inner", "shift")


def scaled(number=1, *, bits=8, shape=(2, 3), dtype=torch.int8):
    """A `Scaled` tensor whose elements are `number`."""
    scheme = Scheme(bits, Rounding.DOWN)
    return Scaled(torch.full(shape, number, dtype=dtype), torch.tensor([0.5 * number]), scheme, torch.int8)


def pair(number=1):
    return Pair(scaled(number), torch.full((2, 3), 0.25 * number))


def model(weight):
    """A module with this weight and an ordinary bias."""
    made = torch.nn.Module()
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    made.bias = torch.nn.Parameter(torch.zeros(2))
    return made


def parts_of(tensor):
    """The parts of a tensor as lists, by role."""
    found = {}
    for name in tensor.__tensor_flatten__()[0]:
        inner = getattr(tensor, name)
        found[name] = parts_of(inner) if isinstance(inner, Wrapper) else inner.tolist()
    return found
