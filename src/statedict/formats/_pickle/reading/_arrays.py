"""Constructors of NumPy arrays, scalars and dtypes from checked bytes.

NumPy never receives the file's own arguments: a dtype is parsed here and created anew, and an array gets exactly as
many bytes as its shape requires. Arrays of objects become Opaque; their elements are ordinary values in its state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

from statedict.errors import FormatError
from statedict.state import DTYPES, Opaque

from ...storages._text import check_text
from ._machine import Args, Constructor, Machine, Unfit

if TYPE_CHECKING:
    import numpy as np

_SIMPLE = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SUV][0-9]{1,9}|[Mm]8)\Z")
_ORDERS: dict[Any, Any] = {key: order for order in "<>|=" for key in (order, order.encode())}
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
_ML_DTYPES = frozenset(
    {row.carrier.removeprefix("ml_dtypes.") for row in DTYPES.values() if row.carrier.startswith("ml_dtypes.")}
    | {"float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"}
    | {"int2", "int4", "uint2", "uint4"}
)


def _dtype(m: Machine, args: Args) -> Any:
    """`numpy.dtype("f4", False, True)`; byte order and fields are set by the BUILD that follows."""
    import numpy as np

    kind = args[0] if args else None
    if type(kind) is bytes:
        kind = kind.decode("latin1")
    if type(kind) is Opaque and kind.module == "ml_dtypes" and kind.name in _ML_DTYPES and kind.args is None:
        import ml_dtypes

        found = getattr(ml_dtypes, kind.name, None)  # older versions of ml_dtypes lack some
        if found is None:
            raise Unfit
        return np.dtype(found)
    if type(kind) is not str or not _SIMPLE.match(kind):
        raise Unfit
    try:
        return np.dtype(kind, copy=True)
    except (TypeError, ValueError):
        raise Unfit from None


def _build_dtype(m: Machine, target: np.dtype[Any], state: Any) -> None:
    """Set `target` to the dtype that `state` describes. NumPy receives only the state of a dtype created here."""
    import numpy as np

    if type(state) is not tuple or not 8 <= len(state) <= 9 or type(state[0]) is not int:
        _refuse("the state of a dtype is malformed")
    if type(target).__module__ != "numpy.dtypes":
        return  # a dtype of ml_dtypes: its state adds nothing
    if id(target) in m.built:
        _refuse("the state of a dtype is set twice")
    m.built[id(target)] = target, 1, 1
    _, order, subarray, names, fields, elsize, _, _ = state[:8]
    if type(order) not in (str, bytes) or order not in _ORDERS:
        _refuse("the byte order of a dtype is not valid")
    try:
        if subarray is not None:
            made = _subarray(m, target, subarray)
        elif names is not None:
            made = _structured(m, target, names, fields, elsize)
        elif target.kind in "Mm":
            unit = _unit(state[8] if len(state) == 9 else None)
            made = np.dtype(f"{target.kind}8{unit}").newbyteorder(_ORDERS[order])
        else:
            made = target.newbyteorder(_ORDERS[order])
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        _refuse(f"the state of a dtype is malformed ({error})")
    if made.itemsize != target.itemsize or made.num != target.num or made.hasobject:
        _refuse("the state of a dtype contradicts its item size")
    target.__setstate__(made.__reduce__()[2])  # type: ignore[attr-defined]


def _copy(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a copy that the file cannot change by setting the state of its own dtype; its fields are copies too."""
    # `np.dtype(dtype, copy=True)` returns the same object. "|" means no change; dtypes of ml_dtypes are never changed.
    return dtype.newbyteorder("|") if type(dtype).__module__ == "numpy.dtypes" else dtype


def _note(m: Machine, target: np.dtype[Any], inside: Iterable[np.dtype[Any]]) -> None:
    """Record how deep a dtype is and how many fields it has: NumPy's dtype functions recurse without memoisation."""
    known = [m.built.get(id(each), (each, 1, 1)) for each in inside]
    depth, fields = 1 + max((each[1] for each in known), default=0), 1 + sum(each[2] for each in known)
    if depth > m.limits.dtype_depth:
        raise m.limits.exceeded("dtype_depth", f"dtypes nested {depth} deep")
    if fields > m.limits.dtype_fields:
        raise m.limits.exceeded("dtype_fields", f"a dtype of {fields:,} fields")
    m.built[id(target)] = target, depth, fields


def _subarray(m: Machine, target: np.dtype[Any], subarray: Any) -> np.dtype[Any]:
    import numpy as np

    if type(subarray) is not tuple or len(subarray) != 2 or not isinstance(subarray[0], np.dtype):
        _refuse("the subarray of a dtype is malformed")
    base, shape = subarray
    shape = (shape,) if type(shape) is int else shape
    if type(shape) is not tuple or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        _refuse("the shape of a dtype's subarray is malformed")
    _note(m, target, [base])
    return np.dtype((_copy(base), shape))


def _structured(m: Machine, target: np.dtype[Any], names: Any, fields: Any, elsize: Any) -> np.dtype[Any]:
    import numpy as np

    if type(names) is not tuple or type(fields) is not dict or type(elsize) is not int or set(names) != set(fields):
        _refuse("the fields of a dtype are malformed")
    m.charge(200 * len(names))
    formats, offsets = [], []
    for name in names:
        field = fields[name]
        if type(name) is not str or type(field) is not tuple or len(field) < 2 or not isinstance(field[0], np.dtype):
            _refuse("a field of a dtype is malformed")
        if type(field[1]) is not int or not 0 <= field[1] <= elsize - field[0].itemsize:
            _refuse("a field of a dtype lies outside its item size")
        formats.append(_copy(field[0]))
        offsets.append(field[1])
    _note(m, target, [fields[name][0] for name in names])
    return np.dtype({"names": list(names), "formats": formats, "offsets": offsets, "itemsize": elsize})


def _unit(metadata: Any) -> str:
    found = metadata[1] if type(metadata) is tuple and len(metadata) == 2 else metadata
    if type(found) is not tuple or len(found) < 2:
        return ""
    unit = found[0].decode("latin1") if type(found[0]) is bytes else found[0]
    if type(unit) is not str or unit not in _UNITS or type(found[1]) is not int or not 0 < found[1] < 1 << 31:
        _refuse("the time unit of a dtype is not valid")
    return "" if unit == "generic" else f"[{found[1]}{unit}]"


def _reconstruct(m: Machine, args: Args) -> Any:
    """Return the empty array that a BUILD then fills."""
    import numpy as np

    if len(args) != 3 or type(args[0]) is not Opaque or args[0].path != "numpy.ndarray" or not _is_nothing(args[1]):
        raise Unfit
    made = np.empty(0, "i1")
    m.empty[id(made)] = made, m.top if m.top >= 0 else len(m.memo), args
    return made


def _is_nothing(shape: Any) -> bool:
    """Return whether it is the placeholder shape that every pickled array has at first."""
    return type(shape) in (tuple, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] == 0


def _build_array(m: Machine, target: np.ndarray[Any, Any], state: Any) -> None:
    import numpy as np

    if target.shape != (0,):
        _refuse("the state of an array is set twice")
    if type(state) is not tuple or not 4 <= len(state) <= 5:
        _refuse("the state of an array is malformed")
    shape, dtype, fortran, raw = state[-4:]
    if type(fortran) not in (bool, int):
        _refuse("the memory order of an array is not True or False")
    if type(dtype) is Opaque:
        _give_up(m, target, state)
        return
    if type(raw) is str:
        raw = raw.encode("utf-8", "surrogatepass")  # bytes of Python 2, decoded as text
    _check(m, shape, dtype, raw)
    m.charge(len(raw))
    # A copy, because the file can still set the state of its own dtype.
    dtype = _copy(dtype)
    check_text(np.frombuffer(raw, dtype) if raw else np.empty(0))
    filled: Any = (1, shape, dtype, bool(fortran), bytes(raw))
    target.__setstate__(filled)


def _give_up(m: Machine, target: np.ndarray[Any, Any], state: Any) -> None:
    """Replace an array of objects by an Opaque, on the stack and in the memo slot where it was just stored."""
    _, slot, args = m.empty[id(target)]
    opaque = Opaque("numpy.core.multiarray", "_reconstruct", args)
    opaque.state = state
    m.stack[-1] = opaque
    if m.memo.get(slot) is target:
        m.memo[slot] = opaque


def _check(m: Machine, shape: Any, dtype: Any, raw: Any) -> None:
    """Raise FormatError unless the number of bytes is exactly what shape and dtype require."""
    import numpy as np

    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise FormatError("the dtype of an array cannot be filled from bytes")
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        _refuse("the shape of an array has an entry that is not a non-negative integer")
    if len(shape) > m.limits.dimensions:
        raise m.limits.exceeded("dimensions", f"an array of {len(shape):,} dimensions")
    if type(raw) not in (bytes, bytearray):
        _refuse(f"the data of an array should be bytes, not {type(raw).__name__}")
    if (
        prod(shape) * dtype.itemsize != len(raw)
        or (not dtype.itemsize and prod(shape))
        or prod(s for s in shape if s) >= 1 << 62
    ):
        _refuse(f"an array of shape {list(shape)} and dtype {dtype} cannot have {len(raw):,} bytes")


def _scalar(m: Machine, args: Args) -> Any:
    import numpy as np

    if len(args) != 2 or not isinstance(args[0], np.dtype) or args[0].hasobject:
        raise Unfit
    dtype, raw = args
    if type(raw) is str:
        raw = raw.encode("utf-8", "surrogatepass")
    _check(m, (1,), dtype, raw)
    m.charge(len(raw))
    made = np.frombuffer(bytearray(raw), _copy(dtype))
    check_text(made)
    return made[0]


def _frombuffer(m: Machine, args: Args) -> Any:
    """An array of protocol 5 with its buffer in the pickle."""
    import numpy as np

    if not 3 <= len(args) <= 4 or (len(args) == 4 and (type(args[3]) is not str or args[3] not in ("C", "F"))):
        raise Unfit
    raw, dtype, shape = args[:3]
    _check(m, shape, dtype, raw)
    m.charge(len(raw))
    order: Any = args[3] if len(args) == 4 else "C"
    dtype = _copy(dtype)
    if not raw:
        return np.empty(shape, dtype)
    made = np.frombuffer(bytearray(raw), dtype)
    check_text(made)
    return made.reshape(shape, order=order)


def build(m: Machine, target: Any, state: Any) -> None:
    """BUILD on an array or a dtype."""
    import numpy as np

    if isinstance(target, np.dtype):
        _build_dtype(m, target, state)
    elif type(target) is np.ndarray:
        _build_array(m, target, state)
    else:
        raise FormatError(f"the pickle sets attributes on an object of type {type(target).__name__}")


def _refuse(why: str) -> NoReturn:
    raise FormatError(f"the file describes invalid NumPy data: {why}")


def _everywhere(module: str, name: str, construct: Constructor) -> dict[tuple[str, str], Any]:
    """Register a constructor under `numpy.core` and `numpy._core`, where NumPy 2 moved it."""
    return {(f"numpy.{core}.{module}", name): construct for core in ("core", "_core")}


CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    ("numpy", "dtype"): _dtype,
    **_everywhere("multiarray", "_reconstruct", _reconstruct),
    **_everywhere("multiarray", "scalar", _scalar),
    **_everywhere("numeric", "_frombuffer", _frombuffer),
}
HARMLESS = frozenset({("numpy", "ndarray")} | {("ml_dtypes", name) for name in _ML_DTYPES})
