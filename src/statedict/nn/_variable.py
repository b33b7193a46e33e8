"""A Variable: an object that holds one array of any library and keeps its identity when the array is replaced.

PyTorch's modules change their tensors in place: `half()`, `load_state_dict` and an optimizer's step keep the Parameter
object, so that tied modules and optimizers still refer to it. NumPy cannot change the dtype of an array, and JAX cannot
change an array at all. So a Variable has the identity, and `data` is its current array. (A subclass of `ndarray` would work
only for NumPy, and the results of all operations would be instances of it too.)

A Variable behaves like its array: operators, indexing, attributes and methods are the array's, and return plain arrays.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

# Attributes that other libraries use to access the memory of an array. All other dunder names are not forwarded;
# `__array_interface__` neither, because it takes precedence over `__array__` and does not support bfloat16.
_PROTOCOLS = frozenset(("__array_namespace__", "__cuda_array_interface__", "__dlpack__", "__dlpack_device__"))


def raw(value: Any) -> Any:
    """Return the array of a Variable; any other value unchanged."""
    return value.data if isinstance(value, Variable) else value


def is_array(value: object) -> bool:
    """Return whether `value` is an array of some library (the array API standard requires `__dlpack__`)."""
    return isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__dlpack__")


def as_array(value: Any) -> Any:
    """Return the array in `value` (an array, a NumPy scalar or a Variable); otherwise raises TypeError."""
    value = raw(value)
    if isinstance(value, np.generic):
        return np.asarray(value)
    if not is_array(value) and not hasattr(value, "__array_namespace__"):
        raise TypeError(f"expected an array of NumPy or another array API library, not {type(value).__name__}")
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
    """An array with an identity; the base of Parameter and Buffer.

    Attributes:
        data: the array, of any library. Assigning another array keeps the identity of the Variable.
        grad: its gradient, or None. The code that computes gradients sets it, or adds to it.
        requires_grad: PyTorch's flag. It is kept and saved, but has no effect, because there is no autograd.
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
        """Return the shape, or the length of one dimension, like PyTorch's `size`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return the number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Return the number of elements."""
        total = 1
        for length in self.shape:
            total *= length
        return total

    def detach(self) -> Any:
        """Return the array itself; it shares memory with this Variable."""
        return self.data

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return a NumPy array, which shares memory if possible."""
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

    # like a tensor: compared by identity in sets and dictionaries, elementwise by ==

    __hash__ = object.__hash__

    def __copy__(self) -> Self:
        return self._holding(self.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if id(self) not in memo:
            memo[id(self)] = self._holding(copy.deepcopy(self.data))
        found: Self = memo[id(self)]
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a call with the array, plus the other attributes; a reader without this class finds both."""
        attributes = {name: value for name, value in vars(self).items() if name not in ("data", "grad")}
        return type(self), (self.data, *self._settings().values()), attributes

    def _settings(self) -> dict[str, Any]:
        """Return the arguments of the class other than the array."""
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
