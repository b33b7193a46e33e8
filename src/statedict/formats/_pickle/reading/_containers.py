"""Put items into containers: which containers accept them, and which values can be keys.

Keys are hashed and compared by C code that recurses, and Python's dict is quadratic in keys with equal hashes. So a key
must be small and shallow, and few keys of one dict may share a hash. Strings and bytes do not need this check, because
their hash is salted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any

from statedict.errors import FormatError
from statedict.state import Compound, DType, Leaf, Opaque

from .._values import Pair, Size, TorchConstant, TypedStorage
from ._machine import Machine

SET_BYTES = 200
DICTS = frozenset({dict, OrderedDict, defaultdict, Counter})
_TUPLES = (tuple, Size, frozenset)
# Hashed by identity or by a few machine words.
_SMALL = frozenset({float, bool, type(None), complex, range, type(...), type(NotImplemented)}) | {
    *(DType, TorchConstant, Leaf, Compound, Opaque, TypedStorage)
}
# The same, for types of modules that are not imported for this purpose.
_SMALL_NAMES = frozenset(
    {("datetime", name) for name in ("datetime", "date", "time", "timedelta", "timezone")}
    | {
        (module, f"{pure}{flavour}Path")
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for flavour in ("Posix", "Windows")
    }
    | {("decimal", "Decimal"), ("fractions", "Fraction"), ("uuid", "UUID")}
)


def append(m: Machine, target: Any, value: Any) -> None:
    """Append one value (APPEND)."""
    if type(target) is list:
        target.append(value)
    else:
        extend(m, target, [value])


def extend(m: Machine, target: Any, values: Sequence[Any]) -> None:
    """Append several values (APPENDS)."""
    kind = type(target)
    if kind is list:
        target.extend(values)
    elif kind is deque:
        for value in values:
            _nest(m, target, value)
        target.extend(values)
    elif kind is Opaque and target.args is not None:
        target.items.extend(values)
    else:
        raise FormatError(f"the pickle appends list items to a {kind.__name__}")


def set_items(m: Machine, target: Any, items: Sequence[Any]) -> None:
    """Set alternating keys and values (SETITEM, SETITEMS and DICT)."""
    if len(items) % 2:
        raise FormatError("a dictionary key has no value")
    keys, values = items[::2], items[1::2]
    kind = type(target)
    if kind is Opaque and target.args is not None:
        target.items.extend(map(Pair, keys, values))
        return
    if kind not in DICTS:
        raise FormatError(f"the pickle sets dictionary items on a {kind.__name__}")
    if kind is defaultdict:
        for value in values:
            _nest(m, target, value)
    expected = len(target) + len(keys)
    if set(map(type, keys)) <= {str}:
        (dict.update if kind is Counter else kind.update)(target, zip(keys, values))  # Counter.update would add counts.
    else:
        for key, value in zip(keys, values):
            check_key(m, target, key)
            target[key] = value
    if len(target) != expected:
        raise FormatError(f"a key is set twice in the same {kind.__name__}: {_doubled(keys)}")


def set_of(m: Machine, items: Iterable[Any], into: set[Any] | None = None) -> set[Any]:
    """Add items to a set, by default a new one."""
    made = set() if into is None else into
    for item in items:
        check_key(m, made, item)
        if item in made:
            raise FormatError("an item is added twice to the same set")
        made.add(item)
    return made


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
        raise FormatError(f"a {kind.__name__} cannot be a dictionary key")


def _is_numpy_scalar(kind: type) -> bool:
    """Return whether a type is a NumPy scalar, without importing NumPy; records and arrays cannot be keys."""
    return kind.__module__ in ("numpy", "ml_dtypes") and kind.__name__ not in ("ndarray", "void", "record")


def _nest(m: Machine, outer: Any, inner: Any) -> None:
    """Limit how deep deques and defaultdicts are nested in each other.

    They are the two containers that C frees by plain recursion. Picklers finish a value before they put it into another
    one, so a container that is already inside another cannot receive more items here; that keeps the recorded depths
    exact.
    """
    if type(inner) not in (deque, defaultdict):
        return
    _, below, _ = m.depths.get(id(inner), (inner, 1, False))
    m.depths[id(inner)] = (inner, below, True)
    _, depth, inside = m.depths.get(id(outer), (outer, 1, False))
    if inside or outer is inner or below + 1 > min(m.limits.depth, 1000):
        raise m.limits.exceeded("depth", "a nesting of deques or defaultdicts")
    m.depths[id(outer)] = (outer, max(depth, below + 1), inside)


def _doubled(keys: Sequence[Any]) -> str:
    strings = [key for key in keys if type(key) is str]
    for key, count in Counter(strings).items():
        if count > 1:
            return repr(key[:200])
    return "one of its keys was already present"
