"""Which values can be keys of a dict, or items of a set.

Keys are hashed and compared by C code that recurses, and Python's dict is quadratic in keys with equal hashes. So a key
must be small and shallow, and few keys of one dict may share a hash. Strings and bytes do not need this check, because
their hash is salted.
"""

from __future__ import annotations

from typing import Any

from statedict.errors import FormatError
from statedict.state import Compound, DType, Leaf, Opaque

from .._values import Size, TorchConstant, TypedStorage
from ._machine import Machine

_TUPLES = (tuple, Size, frozenset)
# Hashed by identity or by a few machine words.
_SMALL = frozenset(
    (float, bool, type(None), complex, range, type(...), type(NotImplemented))
    + (DType, TorchConstant, Leaf, Compound, Opaque, TypedStorage)
)
PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
# The same, for types of modules that are not imported for this purpose.
_SMALL_NAMES = frozenset(
    {("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone")}
    | {(module, flavour) for module in ("pathlib", "pathlib._local") for flavour in PATHS}
    | {("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")}
)


def check_key(m: Machine, target: Any, key: Any) -> None:
    """Raise FormatError for a key that cannot be hashed cheaply, or whose hash too many keys of `target` share."""
    kind = type(key)
    if kind is str or kind is bytes:
        return
    if kind in _TUPLES:
        _check_tuple(m, key)
    else:
        _check_small(m, key)
    _, seen = m.hashes.setdefault(id(target), (target, {}))
    code = hash(key)
    seen[code] = count = seen.get(code, 0) + 1
    if count > m.limits.equal_hashes:
        raise m.limits.exceeded("equal_hashes", f"{count} keys of one dict with the same hash value")


def _check_tuple(m: Machine, key: Any) -> None:
    level: list[Any] = [key]
    depth = count = 0
    while level:
        depth += 1
        if depth > m.limits.key_depth:
            raise m.limits.exceeded("key_depth", f"a key of tuples nested {depth} deep")
        deeper: list[Any] = []
        for nested in level:
            count += len(nested)
            if count > m.limits.key_items:
                raise m.limits.exceeded("key_items", f"a key of {count:,} values")
            for value in nested:
                if type(value) in _TUPLES:
                    deeper.append(value)
                elif type(value) is not str and type(value) is not bytes:
                    _check_small(m, value)
        level = deeper


def _check_small(m: Machine, value: Any) -> None:
    kind = type(value)
    if kind is int:
        if value.bit_length() > 512:
            raise FormatError("a key is an integer of more than 512 bits")
    elif kind not in _SMALL and (kind.__module__, kind.__name__) not in _SMALL_NAMES and not _is_numpy_scalar(kind):
        raise FormatError(f"an object of type {kind.__name__} cannot be a dictionary key")


def _is_numpy_scalar(kind: type) -> bool:
    """Return whether a type is a NumPy scalar, without importing NumPy; records and arrays cannot be keys."""
    return kind.__module__ in ("numpy", "ml_dtypes") and kind.__name__ not in ("ndarray", "void", "record")
