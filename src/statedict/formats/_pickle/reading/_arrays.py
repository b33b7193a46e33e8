"""Constructors of NumPy arrays, scalars and dtypes, out of checked bytes.

What NumPy itself is given is never the file's: a dtype is parsed here and made anew, an array gets bytes whose number is
exactly what its shape says. Arrays of objects become Opaque: their elements are values like any other, and lie in its state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from statedict.errors import FormatError
from statedict.state import DTYPES, Opaque

from ...storages._text import check_text
from ._machine import Machine, Unfit

if TYPE_CHECKING:
    import numpy as np

Args = tuple[Any, ...]

_SIMPLE = re.compile(r"[|<>=]?(?:b1|[iu][1248]|f(?:2|4|8|16)|c(?:8|16|32)|[SUV][0-9]{1,9}|[Mm]8)\Z")
_ORDERS: dict[Any, Literal["<", ">", "|", "="]] = {
    "<": "<",
    b"<": "<",
    ">": ">",
    b">": ">",
    "|": "|",
    b"|": "|",
    "=": "=",
}
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
_ML_DTYPES = frozenset(
    {row.carrier.removeprefix("ml_dtypes.") for row in DTYPES.values() if row.carrier.startswith("ml_dtypes.")}
    | {"float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"}
    | {"int2", "int4", "uint2", "uint4"}
)


def _dtype(m: Machine, args: Args) -> Any:
    """`numpy.dtype("f4", False, True)`; its byte order and fields come with the BUILD after it."""
    import numpy as np

    kind = args[0] if args else None
    if type(kind) is bytes:
        kind = kind.decode("latin1")
    if type(kind) is Opaque and kind.module == "ml_dtypes" and kind.name in _ML_DTYPES and kind.args is None:
        import ml_dtypes

        found = getattr(ml_dtypes, kind.name, None)  # An older one lacks some.
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
    """Make `target` the dtype that `state` describes. NumPy is given its own state of a dtype that was made here."""
    import numpy as np

    if type(state) is not tuple or not 8 <= len(state) <= 9 or type(state[0]) is not int:
        _refuse("a dtype's state is none")
    if type(target).__module__ != "numpy.dtypes":
        return  # One of ml_dtypes: its state says nothing more.
    if id(target) in m.built:
        _refuse("a dtype is changed after it was made")
    m.built[id(target)] = target, 1, 1
    _, order, subarray, names, fields, elsize, _, _ = state[:8]
    if type(order) not in (str, bytes) or order not in _ORDERS:
        _refuse("a dtype's byte order is none")
    try:
        if subarray is not None:
            made = _subarray(m, target, subarray)
        elif names is not None:
            made = _structured(m, target, names, fields, elsize)
        elif target.kind in "Mm":
            made = np.dtype(target.kind + "8" + _unit(state[8] if len(state) == 9 else None)).newbyteorder(
                _ORDERS[order]
            )
        else:
            made = target.newbyteorder(_ORDERS[order])
    except FormatError:
        raise
    except (TypeError, ValueError) as error:
        _refuse(f"a dtype's state is none ({error})")
    if made.itemsize != target.itemsize or made.num != target.num or made.hasobject:
        _refuse("a dtype's state does not fit its size")
    target.__setstate__(made.__reduce__()[2])  # type: ignore[attr-defined]


def _note(m: Machine, target: np.dtype[Any], inside: Iterable[np.dtype[Any]]) -> None:
    """Note how deep a dtype is and how many fields it has: NumPy's functions for dtypes recurse, without a memory of what
    they have seen."""
    known = [m.built.get(id(each), (each, 1, 1)) for each in inside]
    depth, fields = 1 + max((each[1] for each in known), default=0), 1 + sum(each[2] for each in known)
    if depth > m.limits.dtype_depth:
        raise m.limits.exceeded("dtype_depth", f"{depth} dtypes inside each other")
    if fields > m.limits.dtype_fields:
        raise m.limits.exceeded("dtype_fields", f"a dtype of {fields:,} fields")
    m.built[id(target)] = target, depth, fields


def _subarray(m: Machine, target: np.dtype[Any], subarray: Any) -> np.dtype[Any]:
    import numpy as np

    if type(subarray) is not tuple or len(subarray) != 2 or not isinstance(subarray[0], np.dtype):
        _refuse("a dtype's subarray is none")
    base, shape = subarray
    shape = (shape,) if type(shape) is int else shape
    if type(shape) is not tuple or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        _refuse("a dtype's subarray has no shape")
    _note(m, target, [base])
    return np.dtype((np.dtype(base, copy=True), shape))


def _structured(m: Machine, target: np.dtype[Any], names: Any, fields: Any, elsize: Any) -> np.dtype[Any]:
    import numpy as np

    if type(names) is not tuple or type(fields) is not dict or type(elsize) is not int or set(names) != set(fields):
        _refuse("a dtype's fields are none")
    m.charge(200 * len(names))
    formats, offsets = [], []
    for name in names:
        field = fields[name]
        if type(name) is not str or type(field) is not tuple or len(field) < 2 or not isinstance(field[0], np.dtype):
            _refuse("a dtype's field is none")
        if type(field[1]) is not int or not 0 <= field[1] <= elsize - field[0].itemsize:
            _refuse("a dtype's field lies outside it")
        formats.append(np.dtype(field[0], copy=True))
        offsets.append(field[1])
    _note(m, target, [fields[name][0] for name in names])
    return np.dtype({"names": list(names), "formats": formats, "offsets": offsets, "itemsize": elsize})


def _unit(metadata: Any) -> str:
    found = metadata[1] if type(metadata) is tuple and len(metadata) == 2 else metadata
    if type(found) is not tuple or len(found) < 2:
        return ""
    unit = found[0].decode("latin1") if type(found[0]) is bytes else found[0]
    if type(unit) is not str or unit not in _UNITS or type(found[1]) is not int or not 0 < found[1] < 1 << 31:
        _refuse("a dtype's unit of time is none")
    return "" if unit == "generic" else f"[{found[1]}{unit}]"


def _reconstruct(m: Machine, args: Args) -> Any:
    """The empty array that a BUILD then fills."""
    import numpy as np

    if len(args) != 3 or type(args[0]) is not Opaque or args[0].path != "numpy.ndarray" or not _is_nothing(args[1]):
        raise Unfit
    made = np.empty(0, "i1")
    m.empty[id(made)] = made, m.top if m.top >= 0 else len(m.memo), args
    return made


def _is_nothing(shape: Any) -> bool:
    """Whether it is the shape that every pickled array has at first."""
    return type(shape) in (tuple, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] == 0


def _build_array(m: Machine, target: np.ndarray[Any, Any], state: Any) -> None:
    import numpy as np

    if target.shape != (0,):
        _refuse("an array that has its elements is given others")
    if type(state) is not tuple or not 4 <= len(state) <= 5:
        _refuse("an array's state is none")
    shape, dtype, fortran, raw = state[-4:]
    if type(fortran) not in (bool, int):
        _refuse("an array's order is none")
    if type(dtype) is Opaque:
        _give_up(m, target, state)
        return
    if type(raw) is str:
        raw = raw.encode("utf-8", "surrogatepass")  # Python 2's bytes, read as text.
    _check(m, shape, dtype, raw)
    m.charge(len(raw))
    # A copy of the dtype: the file's own may still be given its state.
    dtype = np.dtype(dtype, copy=True)
    check_text(np.frombuffer(raw, dtype) if raw else np.empty(0))
    filled: Any = (1, shape, dtype, bool(fortran), bytes(raw))
    target.__setstate__(filled)


def _give_up(m: Machine, target: np.ndarray[Any, Any], state: Any) -> None:
    """Make an array of objects Opaque after all: on the stack, and in the slot that it was put into at once."""
    _, slot, args = m.empty[id(target)]
    opaque = Opaque("numpy.core.multiarray", "_reconstruct", args)
    opaque.state = state
    m.stack[-1] = opaque
    if m.memo.get(slot) is target:
        m.memo[slot] = opaque


def _check(m: Machine, shape: Any, dtype: Any, raw: Any) -> None:
    """Refuse an array whose bytes are not exactly what its shape and dtype say."""
    import numpy as np

    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise FormatError("an array's dtype is none that bytes can fill")
    if type(shape) is not tuple or not all(type(size) is int and size >= 0 for size in shape):
        _refuse("an array's shape has an entry that is no count")
    if len(shape) > m.limits.dimensions:
        raise m.limits.exceeded("dimensions", f"an array of {len(shape):,} dimensions")
    if type(raw) not in (bytes, bytearray):
        _refuse(f"an array's bytes are a {type(raw).__name__}")
    if (
        prod(shape) * dtype.itemsize != len(raw)
        or (not dtype.itemsize and prod(shape))
        or prod(s for s in shape if s) >= 1 << 62
    ):
        _refuse(f"an array of shape {list(shape)} and dtype {dtype} has {len(raw):,} bytes")


def _scalar(m: Machine, args: Args) -> Any:
    import numpy as np

    if len(args) != 2 or not isinstance(args[0], np.dtype) or args[0].hasobject:
        raise Unfit
    dtype, raw = args
    if type(raw) is str:
        raw = raw.encode("utf-8", "surrogatepass")
    _check(m, (1,), dtype, raw)
    m.charge(len(raw))
    made = np.frombuffer(bytearray(raw), np.dtype(dtype, copy=True))
    check_text(made)
    return made[0]


def _frombuffer(m: Machine, args: Args) -> Any:
    """Protocol 5 with its buffer in the stream."""
    import numpy as np

    if not 3 <= len(args) <= 4 or (len(args) == 4 and (type(args[3]) is not str or args[3] not in ("C", "F"))):
        raise Unfit
    raw, dtype, shape = args[:3]
    _check(m, shape, dtype, raw)
    m.charge(len(raw))
    order: Any = args[3] if len(args) == 4 else "C"
    dtype = np.dtype(dtype, copy=True)
    if not raw:
        return np.empty(shape, dtype)
    made = np.frombuffer(bytearray(raw), dtype)
    check_text(made)
    return made.reshape(shape, order=order)


def build(m: Machine, target: Any, state: Any) -> None:
    """BUILD on an array or dtype."""
    import numpy as np

    if isinstance(target, np.dtype):
        _build_dtype(m, target, state)
    elif type(target) is np.ndarray:
        _build_array(m, target, state)
    else:
        raise FormatError(f"attributes are set on a {type(target).__name__}")


def _refuse(why: str) -> NoReturn:
    raise FormatError(f"NumPy data cannot be what the file says: {why}")


def _everywhere(module: str, name: str, construct: Callable[[Machine, Args], Any]) -> dict[tuple[str, str], Any]:
    """NumPy 2 moved its core from `numpy.core` to `numpy._core`."""
    return {(f"numpy.{core}.{module}", name): construct for core in ("core", "_core")}


CONSTRUCTORS: dict[tuple[str, str], Callable[[Machine, Args], Any]] = {
    ("numpy", "dtype"): _dtype,
    **_everywhere("multiarray", "_reconstruct", _reconstruct),
    **_everywhere("multiarray", "scalar", _scalar),
    **_everywhere("numeric", "_frombuffer", _frombuffer),
}
HARMLESS = frozenset({("numpy", "ndarray")} | {("ml_dtypes", name) for name in _ML_DTYPES})
