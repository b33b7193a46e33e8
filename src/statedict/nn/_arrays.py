"""Arrays of any library, through the array API standard: namespaces, dtypes, conversions.

NumPy conforms to the standard since version 2 and is used directly. array-api-compat is imported only when the first array
of another library is used, so that NumPy users do not need it.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from statedict.errors import MissingDependencyError
from statedict.state import DTYPES, DType

from ._variable import Variable, raw

Array = Any
Namespace = Any

_NUMPY = (np.ndarray, np.generic, bool, int, float, complex, type(None))
_BUILTINS = {"float": "float64", "int": "int64", "complex": "complex128", "bool_": "bool"}


def unwrap(*values: Any) -> tuple[Any, ...]:
    """Return the namespace of the arrays among `values`, then the values, with Variables replaced by their arrays."""
    arrays = [value.data if isinstance(value, Variable) else value for value in values]
    return namespace(*arrays), *arrays


def namespace(*values: Any) -> Namespace:
    """Return the array API functions for these arrays; numbers and None are ignored.

    Raises TypeError if they are from two libraries, MissingDependencyError if array-api-compat is needed and missing.
    """
    for value in values:
        if not isinstance(value, _NUMPY):
            return _foreign(*values)
    return np


def _foreign(*values: Any) -> Namespace:
    try:
        import array_api_compat
    except ImportError as exc:
        raise MissingDependencyError(
            "array-api-compat", needed_for="an array of another library than NumPy", extra="nn"
        ) from exc
    arrays = [value for value in values if not isinstance(value, _NUMPY) or isinstance(value, np.ndarray)]
    try:
        return array_api_compat.array_namespace(*arrays)
    except TypeError as exc:
        kinds = sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays})
        raise TypeError(
            f"all arrays of an operation must be from one library, but got {' and '.join(kinds)}; "
            "move a module with module.to(namespace), for example module.to(torch) or module.to(numpy)"
        ) from exc


def compatible(library: ModuleType) -> Namespace:
    """Return the array API functions of a library, given as its module (`numpy`, `torch`, `cupy`, `jax.numpy`, …)."""
    return np if library is np else _foreign(library.zeros(()))


# dtypes: all libraries use PyTorch's names for the dtypes that they share


def dtype_of(value: Any) -> DType:
    """Return the DType of `value`: a name, a dtype of any library, a NumPy scalar type, or a Python type.

    Raises TypeError if it is not a dtype.
    """
    if isinstance(value, DType):
        return value
    called = value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "__name__", value)
    name = str(called).rpartition(".")[2]
    try:
        return DTYPES[_BUILTINS.get(name, name)]
    except KeyError:
        raise TypeError(f"{value!r} is not a tensor dtype") from None


def is_floating(array: Array) -> bool:
    """Whether the elements are real floating point numbers (bfloat16 and float8 too)."""
    return dtype_of(array.dtype).is_floating


def native_dtype(xp: Namespace, dtype: DType) -> Any:
    """Return the library's own dtype for a DType; raises TypeError if it does not have one."""
    if xp is np:
        return dtype.numpy
    try:
        return getattr(xp, dtype.name)
    except AttributeError:
        raise TypeError(f"{xp.__name__} has no dtype {dtype.name}") from None


def cast(array: Array, dtype: DType) -> Array:
    """Return the array cast to `dtype`; the same array if it already has this dtype."""
    xp = namespace(array)
    if dtype_of(array.dtype) is dtype:
        return array
    native = native_dtype(xp, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(native) if xp is np else xp.astype(array, native)


# devices and libraries


def on_device(array: Array, device: Any) -> Array:
    """Return the array on `device` (a name, or the library's own object); the same array if it is already there."""
    xp = namespace(array)
    if xp is np:
        if str(device) != "cpu":
            raise ValueError(f"NumPy arrays cannot be on {device}: move to another array library first")
        return array
    import array_api_compat

    if isinstance(device, str) and array_api_compat.is_jax_array(array):
        platform, _, number = device.partition(":")
        device = import_module("jax").devices(platform)[int(number or 0)]
    return array_api_compat.to_device(array, device)


def in_library(array: Array, xp: Namespace) -> Array:
    """Return the elements as an array of another library, in new memory; transferred with DLPack if both support it.

    The library that owns the memory makes the copy first, because DLPack shares memory, and an array of JAX must never
    change. NumPy's arrays are transferred by the buffer protocol: with DLPack they are read-only before NumPy 2.2.5.
    """
    source = namespace(array)
    if source is xp:
        return array
    if xp is np:
        # A copy by NumPy: JAX shares its memory read-only, but a parameter must be writable.
        return as_numpy(array).copy()
    if source is not np:
        # DLPack may not support this dtype, device or version: then the copy goes through NumPy.
        with suppress(BufferError, RuntimeError, TypeError, ValueError):
            return xp.from_dlpack(source.asarray(array, copy=True))
    return xp.asarray(as_numpy(array).copy())


def as_numpy(array: Array) -> np.ndarray[Any, Any]:
    """Return the elements as a NumPy array: the same memory if they are on the CPU, otherwise a copy."""
    try:
        return np.asarray(array)
    except TypeError:
        # PyTorch and CuPy refuse implicit copies from another device.
        return np.asarray(on_device(array, "cpu"))


# new arrays like a given one


def full(like: Array, shape: tuple[int, ...], value: float) -> Array:
    """Return an array of `shape` filled with `value`, with the library, dtype and device of `like`."""
    return namespace(like).full(shape, value, dtype=like.dtype, **placed(like))


def asarray(like: Array, values: Any) -> Array:
    """Return NumPy values (masks, indices) as an array of the library and device of `like`, with their own dtype."""
    return namespace(like).asarray(values, **placed(like))


def placed(like: Array) -> dict[str, Any]:
    """Return `device=` of an array, if its library needs it to create an array on the same device."""
    if isinstance(like, (np.ndarray, np.generic)):
        return {}
    import array_api_compat

    # JAX puts arrays where the computation runs; inside jit, arrays have no device.
    return {} if array_api_compat.is_jax_array(like) else {"device": array_api_compat.device(like)}


def put(place: Any, values: Any) -> None:
    """Write values into an array (or a Variable's) in place, so that arrays that share its memory change too.

    An array that is not writable (JAX) is replaced in its Variable; without a Variable this raises TypeError.
    """
    array = raw(place)
    try:
        array[...] = raw(values)
    except (TypeError, ValueError):
        if not isinstance(place, Variable) or is_writable(array):
            raise
        xp = namespace(array)
        place.data = xp.broadcast_to(xp.asarray(raw(values), dtype=array.dtype), array.shape)


def is_writable(array: Array) -> bool:
    """Return whether the array's elements can be changed in place."""
    if isinstance(array, np.ndarray):
        return bool(array.flags.writeable)
    import array_api_compat

    return bool(array_api_compat.is_writeable_array(array))
