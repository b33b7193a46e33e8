"""Arrays of any library, by the array API standard: which functions an operation uses, dtypes, conversions.

NumPy conforms to the standard since version 2 and is used directly; array-api-compat is imported when the first array of
another library comes in, so that NumPy users neither need it nor wait for it.
"""

from __future__ import annotations

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
    """The namespace of the arrays among `values`, then the values themselves, Variables as the arrays that they hold."""
    arrays = [value.data if isinstance(value, Variable) else value for value in values]
    return namespace(*arrays), *arrays


def namespace(*values: Any) -> Namespace:
    """The array API functions for these arrays; numbers and None do not count.

    Raises TypeError where two libraries meet, MissingDependencyError where array-api-compat is needed and missing.
    """
    for value in values:
        if not isinstance(value, _NUMPY):
            return _foreign(*values)
    return np


def _foreign(*values: Any) -> Namespace:
    try:
        import array_api_compat
    except ImportError as exc:
        raise MissingDependencyError("array-api-compat", needed_for="arrays other than NumPy's", extra="nn") from exc
    arrays = [value for value in values if not isinstance(value, _NUMPY) or isinstance(value, np.ndarray)]
    try:
        return array_api_compat.array_namespace(*arrays)
    except TypeError as exc:
        kinds = sorted({f"{type(a).__module__}.{type(a).__qualname__}" for a in arrays})
        raise TypeError(
            f"one operation needs arrays of one library, and was given {' and '.join(kinds)}; "
            "a module moves with module.to(namespace), for example module.to(torch) or module.to(numpy)"
        ) from exc


def compatible(library: ModuleType) -> Namespace:
    """The array API functions of a library given as its module (`numpy`, `torch`, `cupy`, `jax.numpy`, …)."""
    return np if library is np else _foreign(library.zeros(()))


# dtypes: every library has PyTorch's names for the ones that they share


def dtype_of(value: Any) -> DType:
    """The DType that `value` means: a name, a dtype of any library, a NumPy scalar type, or one of Python's types.

    Raises TypeError where it is none.
    """
    if isinstance(value, DType):
        return value
    called = value if isinstance(value, str) else getattr(value, "name", None) or getattr(value, "__name__", value)
    name = str(called).rpartition(".")[2]
    try:
        return DTYPES[_BUILTINS.get(name, name)]
    except KeyError:
        raise TypeError(f"{value!r} is no dtype that a tensor can have") from None


def is_floating(array: Array) -> bool:
    """Whether the elements are real floating point numbers (bfloat16 and float8 too)."""
    return dtype_of(array.dtype).is_floating


def native_dtype(xp: Namespace, dtype: DType) -> Any:
    """The library's own dtype for a DType; raises TypeError where it has none."""
    if xp is np:
        return dtype.numpy
    try:
        return getattr(xp, dtype.name)
    except AttributeError:
        raise TypeError(f"{xp.__name__} has no dtype {dtype.name}") from None


def cast(array: Array, dtype: DType) -> Array:
    """The array with elements of `dtype`: itself where it has them."""
    xp = namespace(array)
    if dtype_of(array.dtype) is dtype:
        return array
    native = native_dtype(xp, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(native) if xp is np else xp.astype(array, native)


# devices and libraries


def on_device(array: Array, device: Any) -> Array:
    """The array on `device` (a name, or the library's own object): itself where it is there."""
    xp = namespace(array)
    if xp is np:
        if str(device) != "cpu":
            raise ValueError(f"NumPy arrays are on the CPU, not on {device}: move to a library that has it first")
        return array
    import array_api_compat

    if isinstance(device, str) and array_api_compat.is_jax_array(array):
        platform, _, number = device.partition(":")
        device = import_module("jax").devices(platform)[int(number or 0)]
    return array_api_compat.to_device(array, device)


def in_library(array: Array, xp: Namespace) -> Array:
    """The elements as an array of another library, in memory of its own: handed over by DLPack where both speak it.

    The copy is made first, by the library that owns the memory: what DLPack hands over is the same memory, and an array
    of JAX must not change under it.
    """
    source = namespace(array)
    if source is xp:
        return array
    if xp is np:
        # A copy by NumPy: JAX hands its memory over read-only, and a parameter has to be writable.
        return as_numpy(array).copy()
    try:
        return xp.from_dlpack(array.copy() if source is np else source.asarray(array, copy=True))
    except (BufferError, RuntimeError, TypeError, ValueError):
        # No DLPack for these elements (bfloat16 in NumPy), this device or this version: through NumPy's memory then.
        return xp.asarray(as_numpy(array).copy())


def as_numpy(array: Array) -> np.ndarray[Any, Any]:
    """The elements as NumPy's array: the same memory where they are on the CPU, a copy where they are not."""
    try:
        return np.asarray(array)
    except TypeError:
        # PyTorch and CuPy refuse what would be a silent copy from another device.
        return np.asarray(on_device(array, "cpu"))


# arrays like others


def full(like: Array, shape: tuple[int, ...], value: float) -> Array:
    """An array of `shape` filled with `value`, of the library, dtype and device of `like`."""
    return namespace(like).full(shape, value, dtype=like.dtype, **placed(like))


def asarray(like: Array, values: Any) -> Array:
    """NumPy values (masks, indices) as an array of the library and device of `like`; the dtype is the values'."""
    return namespace(like).asarray(values, **placed(like))


def placed(like: Array) -> dict[str, Any]:
    """`device=` of an array, where its library's functions need it to put a new array beside it."""
    if isinstance(like, (np.ndarray, np.generic)):
        return {}
    import array_api_compat

    # JAX puts arrays where the computation runs; inside jit there is no device to ask for.
    return {} if array_api_compat.is_jax_array(like) else {"device": array_api_compat.device(like)}


def put(place: Any, values: Any) -> None:
    """Write values into an array (or a Variable's), in place: whoever shares its memory sees them.

    An array that cannot be written (JAX) is replaced in its Variable; a bare one raises TypeError.
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
    """Whether the array's elements can be changed in place."""
    if isinstance(array, np.ndarray):
        return bool(array.flags.writeable)
    import array_api_compat

    return bool(array_api_compat.is_writeable_array(array))
