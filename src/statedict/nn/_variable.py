"""A Variable holds one array of any library under an identity that outlives the array.

PyTorch's modules change their tensors in place: `half()`, `load_state_dict` and an optimizer's step all keep the Parameter
object, so that tied modules and optimizers still see it. NumPy cannot change an array's dtype, and JAX cannot change an
array at all; so the identity is this object's, and `data` is the array it holds now. An `ndarray` subclass would have
served NumPy only, and would have spread through the results of every operation.

A Variable acts as its array: operators, indexing, attributes and methods are the array's and give plain arrays.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

# What other libraries ask an object for, to take its memory as an array. All other dunder names stay the class's own;
# `__array_interface__` too, which would be asked before `__array__` and knows no bfloat16.
_PROTOCOLS = frozenset(("__array_namespace__", "__cuda_array_interface__", "__dlpack__", "__dlpack_device__"))


def raw(value: Any) -> Any:
    """The array that a Variable holds; anything else as it is."""
    return value.data if isinstance(value, Variable) else value


def is_array(value: object) -> bool:
    """Whether `value` is an array of some library (the array API standard asks each for `__dlpack__`)."""
    return isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__dlpack__")


def as_array(value: Any) -> Any:
    """The array in `value` (an array, a NumPy scalar or a Variable); raises TypeError where it is none."""
    value = raw(value)
    if isinstance(value, np.generic):
        return np.asarray(value)
    if not is_array(value) and not hasattr(value, "__array_namespace__"):
        raise TypeError(f"an array is needed, of NumPy or any array API library, not {type(value).__name__}")
    return value


def _binary(act: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: act(self.data, raw(other))


def _reflected(act: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: act(raw(other), self.data)


def _in_place(act: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Variable, other: Any) -> Variable:
        self.data = act(self.data, raw(other))
        return self

    return method


def _unary(act: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: act(self.data)


class Variable:
    """An array with an identity: what a Parameter and a Buffer are.

    Attributes:
        data: the array, of any library; assigning another keeps the identity.
        grad: its gradient (an array, a number of them added by whoever computes it), or None.
        requires_grad: PyTorch's flag; kept and saved, but there is no autograd here that would heed it.
    """

    data: Any
    grad: Any
    requires_grad: bool

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data = as_array(data)
        self.grad = None
        self.requires_grad = requires_grad

    def __getattr__(self, name: str) -> Any:
        if "data" in self.__dict__ and (name in _PROTOCOLS or not name.startswith("__")):
            return getattr(self.data, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension, as PyTorch's `size`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """How many elements."""
        total = 1
        for length in self.shape:
            total *= length
        return total

    def detach(self) -> Any:
        """The array itself: it shares memory with this Variable."""
        return self.data

    def numpy(self) -> np.ndarray[Any, Any]:
        """The array as NumPy's: the same memory where that can be."""
        return np.asarray(self.data)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set the flag; returns itself."""
        self.requires_grad = requires_grad
        return self

    # protocols of other libraries

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = np.asarray(self.data, dtype=dtype)
        return array.copy() if copy else array

    def __jax_array__(self) -> Any:
        return self.data

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*_unwrapped(args), **_unwrapped(kwargs or {}))

    # an object of its own: compared by identity in sets and dictionaries, elementwise by ==, as a tensor is

    __hash__ = object.__hash__

    def __copy__(self) -> Self:
        return self._holding(self.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if id(self) not in memo:
            memo[id(self)] = self._holding(copy.deepcopy(self.data))
        found: Self = memo[id(self)]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """As a call with the array, and the attributes beside it: what reads a pickle without this class sees both."""
        attributes = {name: value for name, value in vars(self).items() if name not in ("data", "grad")}
        return type(self), (self.data, *self._settings().values()), attributes

    def _settings(self) -> dict[str, Any]:
        """What the class is called with beside the array."""
        return {"requires_grad": self.requires_grad}

    def _holding(self, data: Any) -> Self:
        return type(self)(data, **self._settings())

    def __getitem__(self, index: Any) -> Any:
        return self.data[raw(index)]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.data[raw(index)] = raw(value)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)

    def __contains__(self, value: Any) -> bool:
        return raw(value) in self.data

    def __bool__(self) -> bool:
        return bool(self.data)

    def __int__(self) -> int:
        return int(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __repr__(self) -> str:
        return f"{type(self).__name__} containing:\n{self.data!r}"

    __add__, __radd__, __iadd__ = _binary(operator.add), _reflected(operator.add), _in_place(operator.iadd)
    __sub__, __rsub__, __isub__ = _binary(operator.sub), _reflected(operator.sub), _in_place(operator.isub)
    __mul__, __rmul__, __imul__ = _binary(operator.mul), _reflected(operator.mul), _in_place(operator.imul)
    __truediv__, __rtruediv__ = _binary(operator.truediv), _reflected(operator.truediv)
    __itruediv__ = _in_place(operator.itruediv)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv), _reflected(operator.floordiv)
    __mod__, __rmod__ = _binary(operator.mod), _reflected(operator.mod)
    __pow__, __rpow__, __ipow__ = _binary(operator.pow), _reflected(operator.pow), _in_place(operator.ipow)
    __matmul__, __rmatmul__ = _binary(operator.matmul), _reflected(operator.matmul)
    __neg__, __pos__, __abs__ = _unary(operator.neg), _unary(operator.pos), _unary(operator.abs)
    __invert__ = _unary(operator.invert)
    __lt__, __le__, __gt__, __ge__ = map(_binary, (operator.lt, operator.le, operator.gt, operator.ge))
    __eq__, __ne__ = _binary(operator.eq), _binary(operator.ne)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_unwrapped(item) for item in value)
    if isinstance(value, dict):
        return {key: _unwrapped(item) for key, item in value.items()}
    return raw(value)
