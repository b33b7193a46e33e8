"""Constructors of plain Python values: collections, bytes, numbers.

Each takes the arguments of the class's own pickling, checks their types, and creates the value itself; it raises
`Unfit` for anything else. Copies are charged before they are made.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from statedict.errors import FormatError
from statedict.state import Opaque

from .._values import Size
from ._containers import DICTS, SET_BYTES, extend, set_items, set_of
from ._imports import canonical
from ._machine import Machine, Unfit

Args = tuple[Any, ...]


# Bytes of an empty dict and deque (CPython 3.11), which need as little as four bytes of pickle.
_DICT_BYTES, _DEQUE_BYTES = 250, 650


def _ordered_dict(m: Machine, args: Args) -> Any:
    m.charge(_DICT_BYTES)
    made: OrderedDict[Any, Any] = OrderedDict()
    if args:
        # Python 2 passes the items as one list of [key, value] lists.
        (pairs,) = _fit(args, (list, tuple))
        m.charge(100 * len(pairs))
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise Unfit
            set_items(m, made, pair)
    return made


def _counter(m: Machine, args: Args) -> Any:
    m.charge(_DICT_BYTES)
    made: Counter[Any] = Counter()
    if args:
        (counts,) = _fit(args, dict)
        m.charge(100 * len(counts))
        set_items(m, made, [part for item in counts.items() for part in item])
    return made


_KINDS: tuple[type, ...] = (list, dict, int, float, str, set, tuple, bool, bytes)
_FACTORIES: dict[tuple[str, str], type] = {
    **{("builtins", kind.__name__): kind for kind in _KINDS},
    ("collections", "OrderedDict"): OrderedDict,
}


def _defaultdict(m: Machine, args: Args) -> Any:
    if len(args) > 1:
        raise Unfit
    factory = args[0] if args else None
    if factory is not None:
        known = canonical(factory.module, factory.name) if type(factory) is Opaque and factory.args is None else None
        if known not in _FACTORIES:
            raise Unfit
        factory = _FACTORIES[known]
    m.charge(_DICT_BYTES)
    return defaultdict(factory)


def _deque(m: Machine, args: Args) -> Any:
    items, maxlen = _fit((args + ((), None)[len(args) :])[: max(len(args), 2)], (list, tuple), (int, type(None)))
    if type(items) not in (list, tuple) or (maxlen is not None and not 0 <= maxlen < 1 << 31):
        raise Unfit
    m.charge(_DEQUE_BYTES + 8 * len(items))
    made: deque[Any] = deque(maxlen=maxlen)
    extend(m, made, items)
    return made


def _set(m: Machine, args: Args) -> Any:
    items: Any = ()
    if args:
        (items,) = _fit(args, (list, tuple, set, frozenset))
    m.charge(SET_BYTES + 100 * len(items))
    return set_of(m, items)


def _frozenset(m: Machine, args: Args) -> Any:
    return frozenset(_set(m, args))


def _sequence(kind: type) -> Callable[[Machine, Args], Any]:
    def construct(m: Machine, args: Args) -> Any:
        if not args:
            return kind()
        (items,) = _fit(args, (list, tuple, set, frozenset))
        m.charge(8 * len(items))
        return kind(items)

    return construct


def _dict(m: Machine, args: Args) -> Any:
    made: dict[Any, Any] = {}
    if args:
        (items,) = _fit(args, DICTS)
        m.charge(100 * len(items))
        made.update(items)
    return made


def _encode(m: Machine, args: Args) -> Any:
    """`_codecs.encode`, which protocols 0 to 2 use to write bytes."""
    text, codec = (args[0], "utf-8") if len(args) == 1 else _fit(args, str, str)
    if type(text) is not str or codec.lower().replace("-", "").replace("_", "") not in ("latin1", "utf8", "ascii"):
        raise Unfit
    m.charge(len(text))
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        raise FormatError(f"text that encodes bytes is not valid {codec}") from None


def _bytes(kind: type) -> Callable[[Machine, Args], Any]:
    def construct(m: Machine, args: Args) -> Any:
        if not args:
            return kind()
        raw = args[0]
        if type(raw) is int:
            raise FormatError(
                f"{kind.__name__}({raw:,}): this needs far more memory than the size of the file justifies"
            )
        if type(raw) is str and len(args) == 2:
            raw = _encode(m, args)
        elif type(raw) is list and all(type(each) is int and 0 <= each < 256 for each in raw):
            raw = bytes(raw)
        elif type(raw) not in (bytes, bytearray) or len(args) != 1:
            raise Unfit
        m.charge(len(raw))
        return kind(raw)

    return construct


def _numbers(kind: Callable[..., Any], *kinds: tuple[type, ...]) -> Callable[[Machine, Args], Any]:
    """Return a constructor that takes numbers (or None) of the given types, of which trailing ones may be omitted."""

    def construct(m: Machine, args: Args) -> Any:
        if len(args) > len(kinds) or any(type(arg) not in allowed for arg, allowed in zip(args, kinds)):
            raise Unfit
        try:
            return kind(*args)
        except (ValueError, OverflowError, TypeError, ZeroDivisionError):
            raise Unfit from None

    return construct


def _size(m: Machine, args: Args) -> Any:
    (items,) = _fit(args, (tuple, list)) if args else ((),)
    if len(items) > m.limits.dimensions:
        raise m.limits.exceeded("dimensions", f"a torch.Size of {len(items):,} dimensions")
    if not all(type(size) is int for size in items):
        raise FormatError("the items of a torch.Size should be integers")
    return Size(items)


def _fit(args: Args, *kinds: type | tuple[type, ...] | frozenset[type]) -> Args:
    """Return the arguments if they are of exactly these types; raise Unfit otherwise."""
    if len(args) != len(kinds):
        raise Unfit
    for arg, kind in zip(args, kinds):
        allowed = (kind,) if isinstance(kind, type) else kind
        if type(arg) not in allowed:
            raise Unfit
    return args


_INT, _REAL, _INDEX = (int,), (int, float), (int, type(None))

CONSTRUCTORS: dict[tuple[str, str], Callable[[Machine, Args], Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _counter,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _frozenset,
    ("builtins", "list"): _sequence(list),
    ("builtins", "tuple"): _sequence(tuple),
    ("builtins", "dict"): _dict,
    ("builtins", "bytes"): _bytes(bytes),
    ("builtins", "bytearray"): _bytes(bytearray),
    ("builtins", "complex"): _numbers(complex, _REAL, _REAL),
    ("builtins", "range"): _numbers(range, _INT, _INT, _INT),
    ("builtins", "slice"): _numbers(slice, _INDEX, _INDEX, _INDEX),
    ("_codecs", "encode"): _encode,
    ("torch", "Size"): _size,
}
CONSTANTS: dict[tuple[str, str], Any] = {
    ("builtins", "Ellipsis"): ...,
    ("builtins", "NotImplemented"): NotImplemented,
}
# Known classes whose instances become Opaque, because they are not needed here as anything else; importing them is
# safe.
HARMLESS = frozenset({("builtins", name) for name in ("object", "int", "float", "str", "bool", "type")})
