"""Methods that change every array of a module tree (dtype, device, library) or its flags (training, requires_grad).

A Parameter keeps its identity and gets a new array. Plain attributes are not moved. A shared Parameter is converted once for
each place where it is registered, as in PyTorch; the second time it already has the dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

from statedict.state import DTYPES, DType

from . import _arrays
from ._calling import Calling
from ._parameter import Parameter
from ._registration import held
from ._variable import Variable, is_array, raw

Convert = Callable[[Any], Any]


class Conversion(Calling):
    """`to` and similar methods, `train`, `eval`, `requires_grad_`, `zero_grad`."""

    def _apply(self, fn: Convert, recurse: bool = True) -> Self:
        """Replace the array of every parameter, gradient and buffer by the result of `fn`, children first."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        for parameter in self._parameters.values():
            if parameter is not None:
                parameter.data = raw(fn(parameter.data))
                if parameter.grad is not None:
                    parameter.grad = raw(fn(raw(parameter.grad)))
        for name, buffer in self._buffers.items():
            if isinstance(buffer, Variable):
                buffer.data = raw(fn(buffer.data))
            elif buffer is not None:
                self._buffers[name] = held(raw(fn(buffer)), name not in self._non_persistent_buffers_set)
        return self

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move or cast every parameter and buffer; returns itself. Plain attributes are not changed.

        Any of these, in any order or by keyword:
            dtype: a name or a dtype of any library, floating point or complex (otherwise TypeError). Integer parameters
                and buffers keep their dtype.
            device: a name such as `"cpu"` or `"cuda:0"`, or the library's own object.
            xp: the array library, given as its module: `numpy`, `torch`, `cupy`, `jax.numpy`.
            tensor: an array; its library, device and dtype are used.

        >>> nn.Linear(2, 2).to("float64").weight.dtype
        dtype('float64')
        """
        return self._apply(converter(*args, **kwargs))

    def type(self, dst_type: Any) -> Self:
        """Cast every parameter and buffer, integers too; returns itself."""
        dtype = _arrays.dtype_of(dst_type)
        return self._apply(lambda array: _arrays.cast(array, dtype))

    def float(self) -> Self:
        """Cast floating point parameters and buffers to float32; returns itself."""
        return self._cast_floating("float32")

    def double(self) -> Self:
        """Cast floating point parameters and buffers to float64; returns itself."""
        return self._cast_floating("float64")

    def half(self) -> Self:
        """Cast floating point parameters and buffers to float16; returns itself."""
        return self._cast_floating("float16")

    def bfloat16(self) -> Self:
        """Cast floating point parameters and buffers to bfloat16; returns itself."""
        return self._cast_floating("bfloat16")

    def _cast_floating(self, name: str) -> Self:
        dtype = DTYPES[name]
        return self._apply(lambda array: _arrays.cast(array, dtype) if _arrays.is_floating(array) else array)

    def cpu(self) -> Self:
        """Move to the CPU; returns itself."""
        return self._apply(lambda array: _arrays.on_device(array, "cpu"))

    def cuda(self, device: Any = None) -> Self:
        """Move to a CUDA device, if the array library supports it; returns itself."""
        name = "cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device
        return self._apply(lambda array: _arrays.on_device(array, name))

    def to_empty(self, *, device: Any, recurse: bool = True) -> Self:
        """Replace all arrays by new ones on a device, with undefined elements (here: zeros); returns itself."""
        return self._apply(
            lambda array: _arrays.on_device(_arrays.full(array, tuple(array.shape), 0), device), recurse=recurse
        )

    # flags

    def train(self, mode: bool = True) -> Self:
        """Set training mode for every module of the tree; returns itself. ValueError if `mode` is not a bool."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode; returns itself."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of every parameter; returns itself."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Delete every parameter's gradient, or fill it with zeros."""
        for parameter in self.parameters():
            clear_grad(parameter, set_to_none)


def converter(*args: Any, **kwargs: Any) -> Convert:
    """Return the function that `to` applies to each array."""
    wanted = _parse(args, kwargs)
    dtype, device, xp = wanted.get("dtype"), wanted.get("device"), wanted.get("xp")
    if dtype is not None and not (dtype.is_floating or dtype.is_complex):
        raise TypeError(
            "nn.Module.to only accepts floating point or complex dtypes, but got desired "
            f"dtype={_spelled(args, kwargs, dtype)}"
        )

    def convert(array: Any) -> Any:
        array = array if xp is None else _arrays.in_library(array, xp)
        array = array if device is None else _arrays.on_device(array, device)
        found = _arrays.dtype_of(array.dtype)
        return _arrays.cast(array, dtype) if dtype and (found.is_floating or found.is_complex) else array

    return convert


def clear_grad(parameter: Parameter, set_to_none: bool) -> None:
    """Delete a parameter's gradient, or fill it with zeros."""
    if parameter.grad is not None:
        grad = raw(parameter.grad)
        parameter.grad = None if set_to_none else _arrays.full(grad, tuple(grad.shape), 0)


def _parse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `to`: dtype (a DType), device, xp (a namespace)."""
    unknown = kwargs.keys() - {"device", "dtype", "xp", "tensor", "other", "non_blocking", "copy", "memory_format"}
    if unknown:
        raise TypeError(f"to() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    wanted: dict[str, Any] = {}
    for value in args:
        # A bool is `non_blocking`, which has no effect here.
        if value is not None and not isinstance(value, bool):
            wanted.update(_meaning(value))
    for key in ("tensor", "other"):
        if kwargs.get(key) is not None:
            wanted.update(_meaning(kwargs[key]))
    if kwargs.get("dtype") is not None:
        wanted["dtype"] = _arrays.dtype_of(kwargs["dtype"])
    if kwargs.get("device") is not None:
        wanted["device"] = kwargs["device"]
    if kwargs.get("xp") is not None:
        wanted["xp"] = _arrays.compatible(kwargs["xp"])
    return wanted


def _meaning(value: Any) -> dict[str, Any]:
    if isinstance(value, ModuleType):
        return {"xp": _arrays.compatible(value)}
    array = raw(value)
    if is_array(array):
        return {"xp": _arrays.namespace(array), "dtype": _arrays.dtype_of(array.dtype), **_arrays.placed(array)}
    try:
        return {"dtype": _arrays.dtype_of(value)}
    except TypeError:
        return {"device": value}


def _spelled(args: tuple[Any, ...], kwargs: dict[str, Any], dtype: DType) -> str:
    """Return the dtype as the caller wrote it."""
    for value in (kwargs.get("dtype"), *args):
        if value is not None and not is_array(raw(value)) and not isinstance(value, ModuleType):
            return str(value)
    return str(dtype)
