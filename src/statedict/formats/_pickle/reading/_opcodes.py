"""The data opcodes: numbers, strings, containers, the memo. Those that name and call globals are in `_calls`.

They follow CPython's unpickler, except that every length is checked first, containers accept items only if their type
is exactly one of ours, and a key that is set twice is refused: picklers do not write that, and readers of such a file
could disagree.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from statedict.errors import FormatError
from statedict.state import Opaque

from . import _calls, _literals
from ._containers import SET_BYTES, append, extend, set_items, set_of
from ._machine import Handler, Machine
from ._records import read_records, unfold, unfold_all

DICTS = (dict, OrderedDict, defaultdict, Counter)


def _refused(what: str) -> Handler:
    def refuse(m: Machine, at: int) -> int:
        raise FormatError(what)

    return refuse


def _proto(m: Machine, at: int) -> int:
    version = m.take(at, 1)[0]
    if at - 1 != m.start:
        raise FormatError("a protocol header occurs in the middle of the pickle")
    if version > 5:
        raise FormatError(f"pickle protocol {version} is not supported; expected 0 to 5")
    return at + 1


def _frame(m: Machine, at: int) -> int:
    length = int.from_bytes(m.take(at, 8), "little")
    if length > m.size - at - 8:
        m.ended(at + 8, length)
    return at + 8


def _stop(m: Machine, at: int) -> int:
    m.end = at
    return m.size


# stack and marks


def _mark(m: Machine, at: int) -> int:
    if len(m.marks) >= m.limits.depth:
        raise m.limits.exceeded("depth", f"{len(m.marks) + 1:,} nested marks")
    m.marks.append(m.stack)
    m.stack = []
    return at


def _pop(m: Machine, at: int) -> int:
    if m.stack:
        m.stack.pop()
    else:
        m.stack = m.marks.pop()
    return at


def _pop_mark(m: Machine, at: int) -> int:
    m.stack = m.marks.pop()
    return at


def _dup(m: Machine, at: int) -> int:
    m.stack.append(m.stack[-1])
    return at


def popped(m: Machine) -> list[Any]:
    """Pop the values since the last mark."""
    items = m.stack
    m.stack = m.marks.pop()
    return items


# memo


def _got(m: Machine, index: int, at: int) -> int:
    """Push a memo slot; if that begins the record of a tensor, continue after the record."""
    value = m.memo.get(index, m)
    if value is m:
        if not unfold(m, index):
            raise FormatError(f"memo slot {index:,} is read before it is set")
        value = m.memo[index]
    m.stack.append(value)
    if value is m.rebuild:
        return read_records(m, at)
    return at


def _keep(m: Machine, index: int) -> None:
    """Set a memo slot. Picklers number them consecutively; the fast path relies on that and is disabled otherwise."""
    value = m.stack[-1]
    if index == m.top:
        m.top = index + 1
    else:
        unfold_all(m)
    m.memo[index] = value


def _put(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    _keep(m, _literals.decimal(m, text))
    return at


def _binput(m: Machine, at: int) -> int:
    _keep(m, m.data[at])
    return at + 1


def _long_binput(m: Machine, at: int) -> int:
    index = int.from_bytes(m.data[at : at + 4], "little")
    if at + 4 > m.size:
        m.ended(at, 4)
    _keep(m, index)
    return at + 4


def _memoize(m: Machine, at: int) -> int:
    if m.seen.firsts:
        unfold_all(m)
    _keep(m, len(m.memo))
    return at


def _text_get(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    return _got(m, _literals.decimal(m, text), at)


def _binget(m: Machine, at: int) -> int:
    return _got(m, m.data[at], at + 1)


def _long_binget(m: Machine, at: int) -> int:
    if at + 4 > m.size:
        m.ended(at, 4)
    return _got(m, int.from_bytes(m.data[at : at + 4], "little"), at + 4)


# containers


def _new(kind: Callable[[], object]) -> Handler:
    def push(m: Machine, at: int) -> int:
        made = kind()
        m.made.append(made)
        m.stack.append(made)
        return at

    return push


def _empty_set(m: Machine, at: int) -> int:
    m.charge(SET_BYTES)
    m.stack.append(set())
    return at


def _tuple(m: Machine, at: int) -> int:
    items = tuple(popped(m))
    m.made.append(items)
    m.stack.append(items)
    return at


def _tuple_of(count: int) -> Handler:
    def push(m: Machine, at: int) -> int:
        if len(m.stack) < count:
            raise IndexError
        made = tuple(m.stack[-count:])
        m.made.append(made)
        m.stack[-count:] = [made]
        return at

    return push


def _list(m: Machine, at: int) -> int:
    items = popped(m)
    m.made.append(items)
    m.stack.append(items)
    return at


def _dict(m: Machine, at: int) -> int:
    items = popped(m)
    made: dict[Any, Any] = {}
    m.made.append(made)
    m.stack.append(made)
    set_items(m, made, items)
    return at


def _frozenset(m: Machine, at: int) -> int:
    items = popped(m)
    m.stack.append(frozenset(set_of(m, items)))
    return at


def _append(m: Machine, at: int) -> int:
    value = m.stack.pop()
    append(m, m.stack[-1], value)
    return at


def _appends(m: Machine, at: int) -> int:
    items = popped(m)
    extend(m, m.stack[-1], items)
    return at


def _setitem(m: Machine, at: int) -> int:
    value = m.stack.pop()
    key = m.stack.pop()
    set_items(m, m.stack[-1], [key, value])
    return at


def _setitems(m: Machine, at: int) -> int:
    items = popped(m)
    set_items(m, m.stack[-1], items)
    return at


def _additems(m: Machine, at: int) -> int:
    items = popped(m)
    target = m.stack[-1]
    if type(target) is set:
        set_of(m, items, target)
    elif type(target) is Opaque and target.args is not None:
        target.items.extend(items)
    else:
        raise FormatError(f"the pickle adds set items to a {type(target).__name__}")
    return at


HANDLERS: list[Handler] = [_refused("an unknown opcode")] * 256
for _code, _handler in {
    b"\x80": _proto,
    b"\x95": _frame,
    b".": _stop,
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _dup,
    b"p": _put,
    b"q": _binput,
    b"r": _long_binput,
    b"\x94": _memoize,
    b"g": _text_get,
    b"h": _binget,
    b"j": _long_binget,
    b")": _literals.constant(()),
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"t": _tuple,
    b"]": _new(list),
    b"l": _list,
    b"}": _new(dict),
    b"d": _dict,
    b"\x8f": _empty_set,
    b"\x91": _frozenset,
    b"a": _append,
    b"e": _appends,
    b"s": _setitem,
    b"u": _setitems,
    b"\x90": _additems,
    b"\x82": _refused(
        "the EXT1 opcode refers to the extension registry of the writing process, which is not in the file"
    ),
    b"\x83": _refused(
        "the EXT2 opcode refers to the extension registry of the writing process, which is not in the file"
    ),
    b"\x84": _refused(
        "the EXT4 opcode refers to the extension registry of the writing process, which is not in the file"
    ),
    b"\x97": _refused("the pickle refers to an out-of-band buffer, which is not in the file"),
    b"\x98": _refused("the pickle refers to an out-of-band buffer, which is not in the file"),
    **_calls.HANDLERS,
    **_literals.HANDLERS,
}.items():
    HANDLERS[_code[0]] = _handler
