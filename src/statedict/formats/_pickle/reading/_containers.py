"""Containers: the opcodes and calls that create and fill them.

Containers accept items only if their type is exactly one of ours, and a key that is set twice is refused: picklers do
not write that, and readers of such a file could disagree.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from statedict.errors import FormatError
from statedict.state import Opaque

from .._names import canonical
from .._values import Pair
from ._keys import check_key
from ._machine import Args, Constructor, Handler, Machine, Unfit, fit

# Bytes of an empty container (CPython 3.11), which needs as little as one to four bytes of pickle.
_SET_BYTES, _DICT_BYTES, _DEQUE_BYTES = 200, 250, 650
DICTS = frozenset({dict, OrderedDict, defaultdict, Counter})


# filling


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
        raise FormatError(f"the pickle appends list items to an object of type {kind.__name__}")


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
        raise FormatError(f"the pickle sets dictionary items on an object of type {kind.__name__}")
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
        twice = [key for key, count in Counter(key for key in keys if type(key) is str).items() if count > 1]
        which = repr(twice[0][:200]) if twice else "one of its keys was already present"
        raise FormatError(f"a key is set twice in the same {kind.__name__}: {which}")


def add_items(m: Machine, target: Any, items: Sequence[Any]) -> None:
    """Add items to a set (ADDITEMS)."""
    if type(target) is set:
        set_of(m, items, target)
    elif type(target) is Opaque and target.args is not None:
        target.items.extend(items)
    else:
        raise FormatError(f"the pickle adds set items to an object of type {type(target).__name__}")


def set_of(m: Machine, items: Iterable[Any], into: set[Any] | None = None) -> set[Any]:
    """Add items to a set, by default a new one."""
    made = set() if into is None else into
    for item in items:
        check_key(m, made, item)
        if item in made:
            raise FormatError("an item is added twice to the same set")
        made.add(item)
    return made


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


# opcodes


def _new(kind: Callable[[], object]) -> Handler:
    def push(m: Machine, at: int) -> int:
        made = kind()
        m.made.append(made)
        m.stack.append(made)
        return at

    return push


def _empty_set(m: Machine, at: int) -> int:
    m.charge(_SET_BYTES)
    m.stack.append(set())
    return at


def _collected(kind: Callable[[list[Any]], object]) -> Handler:
    def push(m: Machine, at: int) -> int:
        made = kind(m.popped())
        m.made.append(made)
        m.stack.append(made)
        return at

    return push


def _tuple_of(count: int) -> Handler:
    def push(m: Machine, at: int) -> int:
        if len(m.stack) < count:
            raise IndexError
        made = tuple(m.stack[-count:])
        m.made.append(made)
        m.stack[-count:] = [made]
        return at

    return push


def _dict(m: Machine, at: int) -> int:
    items = m.popped()
    made: dict[Any, Any] = {}
    m.made.append(made)
    m.stack.append(made)
    set_items(m, made, items)
    return at


def _frozenset(m: Machine, at: int) -> int:
    items = m.popped()
    m.stack.append(frozenset(set_of(m, items)))
    return at


def _append(m: Machine, at: int) -> int:
    value = m.stack.pop()
    target = m.stack[-1]
    if type(target) is list:
        target.append(value)
    else:
        extend(m, target, [value])
    return at


def _setitem(m: Machine, at: int) -> int:
    value = m.stack.pop()
    key = m.stack.pop()
    set_items(m, m.stack[-1], [key, value])
    return at


def _fill(put: Callable[[Machine, Any, list[Any]], None]) -> Handler:
    def fill(m: Machine, at: int) -> int:
        items = m.popped()
        put(m, m.stack[-1], items)
        return at

    return fill


# calls


def _ordered_dict(m: Machine, args: Args) -> Any:
    m.charge(_DICT_BYTES)
    made: OrderedDict[Any, Any] = OrderedDict()
    if args:
        # Python 2 passes the items as one list of [key, value] lists.
        (pairs,) = fit(args, (list, tuple))
        m.charge(100 * len(pairs))
        for pair in pairs:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise Unfit
            set_items(m, made, pair)
    return made


def _copied(kind: type[dict[Any, Any]], allowed: type | frozenset[type]) -> Constructor:
    """Return a constructor that copies a mapping. Its keys are checked again, as more can be added to the copy."""

    def construct(m: Machine, args: Args) -> Any:
        (items,) = fit(args, allowed) if args else ({},)
        m.charge(_DICT_BYTES + 100 * len(items))
        made = kind()
        set_items(m, made, [part for item in items.items() for part in item])
        return made

    return construct


_FACTORIES = {
    **{("builtins", kind.__name__): kind for kind in (list, dict, int, float, str, set, tuple, bool, bytes)},
    ("collections", "OrderedDict"): OrderedDict,
}


def _defaultdict(m: Machine, args: Args) -> Any:
    (named,) = fit(args, (Opaque, type(None))) if args else (None,)
    factory = None if named is None else _FACTORIES.get(canonical(named.module, named.name))
    if named is not None and (named.args is not None or factory is None):
        raise Unfit
    m.charge(_DICT_BYTES)
    return defaultdict(factory)


def _deque(m: Machine, args: Args) -> Any:
    items, maxlen = fit(args + ((), None)[len(args) :], (list, tuple), (int, type(None)))
    if maxlen is not None and not 0 <= maxlen < 1 << 31:
        raise Unfit
    m.charge(_DEQUE_BYTES + 8 * len(items))
    made: deque[Any] = deque(maxlen=maxlen)
    extend(m, made, items)
    return made


def _items(args: Args) -> Any:
    return fit(args, (list, tuple, set, frozenset))[0] if args else ()


def _set(m: Machine, args: Args) -> Any:
    items = _items(args)
    m.charge(_SET_BYTES + 100 * len(items))
    return set_of(m, items)


def _sequence(kind: type) -> Constructor:
    def construct(m: Machine, args: Args) -> Any:
        items = _items(args)
        m.charge(8 * len(items))
        return kind(items)

    return construct


CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _copied(Counter, dict),
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): lambda m, args: frozenset(_set(m, args)),
    ("builtins", "list"): _sequence(list),
    ("builtins", "tuple"): _sequence(tuple),
    ("builtins", "dict"): _copied(dict, DICTS),
}
HANDLERS: dict[bytes, Handler] = {
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"t": _collected(tuple),
    b"]": _new(list),
    b"l": _collected(lambda items: items),
    b"}": _new(dict),
    b"d": _dict,
    b"\x8f": _empty_set,
    b"\x91": _frozenset,
    b"a": _append,
    b"e": _fill(extend),
    b"s": _setitem,
    b"u": _fill(set_items),
    b"\x90": _fill(add_items),
}
