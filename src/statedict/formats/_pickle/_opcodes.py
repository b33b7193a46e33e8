"""What each data opcode does: numbers, strings, containers, the memo. The ones that name and call globals are in `_calls`.

Each follows CPython's unpickler, except that every length is checked first, containers accept items only if they are
exactly ours, and a key that is set twice is refused: no pickler writes that, and two readers of such a file can disagree.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from struct import unpack_from
from typing import Any

from statedict.errors import FormatError
from statedict.state import Opaque

from . import _calls
from ._containers import SET_BYTES, append, extend, set_items, set_of
from ._fast import read_record, unfold, unfold_all
from ._machine import Handler, Machine

DICTS = (dict, OrderedDict, defaultdict, Counter)


def _refused(what: str) -> Handler:
    def refuse(m: Machine, at: int) -> int:
        raise FormatError(what)

    return refuse


def _proto(m: Machine, at: int) -> int:
    version = m.take(at, 1)[0]
    if at - 1 != m.start:
        raise FormatError("a second protocol header in the middle of a pickle")
    if version > 5:
        raise FormatError(f"pickle protocol {version} is not known; 0 to 5 are")
    m.proto = version
    return at + 1


def _frame(m: Machine, at: int) -> int:
    length = int.from_bytes(m.take(at, 8), "little")
    if length > m.size - at - 8:
        m.ended(at + 8, length)
    return at + 8


def _stop(m: Machine, at: int) -> int:
    m.end = at
    return m.size


# the stack and its marks


def _mark(m: Machine, at: int) -> int:
    if len(m.marks) >= m.limits.depth:
        raise m.limits.exceeded("depth", f"a nesting of {len(m.marks) + 1:,} open marks")
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
    """The values since the last mark, taken off the stack."""
    items = m.stack
    m.stack = m.marks.pop()
    return items


# the memo


def _got(m: Machine, index: int, at: int) -> int:
    """Push a memo slot; where that begins the record of a tensor, go on after it."""
    value = m.memo.get(index, m)
    if value is m:
        if not unfold(m, index):
            raise FormatError(f"memo slot {index:,} is read before it is set")
        value = m.memo[index]
    m.stack.append(value)
    if value is m.rebuild:
        return read_record(m, at) or at
    return at


def _keep(m: Machine, index: int) -> None:
    """Set a memo slot. Picklers use them in order; the quick path, which relies on that, ends where one does not."""
    if index != m.top:
        unfold_all(m)
    m.top += 1
    m.memo[index] = m.stack[-1]


def _put(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    _keep(m, _decimal(m, text))
    return at


def _binput(m: Machine, at: int) -> int:
    _keep(m, m.data[at])
    return at + 1


def _long_binput(m: Machine, at: int) -> int:
    index = int.from_bytes(m.data[at : at + 4], "little")
    if at + 4 > m.size:
        m.ended(at, 4)
    if index != m.top:
        unfold_all(m)
    m.top += 1
    m.memo[index] = m.stack[-1]
    return at + 4


def _memoize(m: Machine, at: int) -> int:
    unfold_all(m)
    m.memo[len(m.memo)] = m.stack[-1]
    return at


def _text_get(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    return _got(m, _decimal(m, text), at)


def _binget(m: Machine, at: int) -> int:
    return _got(m, m.data[at], at + 1)


def _long_binget(m: Machine, at: int) -> int:
    if at + 4 > m.size:
        m.ended(at, 4)
    return _got(m, int.from_bytes(m.data[at : at + 4], "little"), at + 4)


# numbers and constants


def _constant(value: object) -> Handler:
    def push(m: Machine, at: int) -> int:
        m.stack.append(value)
        return at

    return push


_DECIMAL = re.compile(rb"[+-]?[0-9]+\Z")


def _decimal(m: Machine, text: bytes) -> int:
    if not _DECIMAL.match(text):
        raise FormatError("a line that should be a decimal integer is none")
    if len(text) > m.limits.digits:
        raise m.limits.exceeded("digits", f"an integer of {len(text):,} digits")
    return int(text)


def _int(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    # Protocol 0 has no opcode for booleans: it writes them as integers with a leading zero.
    m.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _decimal(m, text))
    return at


def _long(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    m.stack.append(_decimal(m, text.removesuffix(b"L")))
    return at


def _binint(m: Machine, at: int) -> int:
    m.stack.append(int.from_bytes(m.take(at, 4), "little", signed=True))
    return at + 4


def _binint1(m: Machine, at: int) -> int:
    m.stack.append(m.take(at, 1)[0])
    return at + 1


def _binint2(m: Machine, at: int) -> int:
    m.stack.append(int.from_bytes(m.take(at, 2), "little"))
    return at + 2


def _binary_long(width: int) -> Handler:
    def push(m: Machine, at: int) -> int:
        length = int.from_bytes(m.take(at, width), "little", signed=width == 4)
        if length < 0:
            raise FormatError(f"an integer of {length:,} bytes")
        if length > m.limits.long_bytes:
            raise m.limits.exceeded("long_bytes", f"an integer of {length:,} bytes")
        m.stack.append(int.from_bytes(m.take(at + width, length), "little", signed=True))
        return at + width + length

    return push


_FLOAT = re.compile(rb"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|inf|nan)\Z")


def _float(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    if not _FLOAT.match(text):
        raise FormatError("a line that should be a floating-point number is none")
    m.stack.append(float(text))
    return at


def _binfloat(m: Machine, at: int) -> int:
    m.stack.append(unpack_from(">d", m.take(at, 8))[0])
    return at + 8


# strings and bytes


def _sized(width: int, decode: Callable[[bytes], object], *, signed: bool = False) -> Handler:
    def push(m: Machine, at: int) -> int:
        length = int.from_bytes(m.take(at, width), "little", signed=signed)
        if length < 0:
            raise FormatError(f"a string of {length:,} bytes")
        if length > m.size - at - width:
            m.ended(at + width, length)
        if length > m.limits.string_bytes:
            raise m.limits.exceeded("string_bytes", f"a string of {length:,} bytes")
        at += width
        m.stack.append(decode(m.data[at : at + length]))
        return at + length

    return push


def _utf8(raw: bytes) -> str:
    try:
        return str(raw, "utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not UTF-8 ({error.reason})") from None


def _binunicode(m: Machine, at: int) -> int:
    # "cpu" becomes the literal, as it was where the file was written: then saving again gives the same bytes.
    length = int.from_bytes(m.data[at : at + 4], "little")
    stop = at + 4 + length
    if stop >= m.size or length > m.limits.string_bytes:
        return _long_unicode(m, at)
    try:
        text = str(m.data[at + 4 : stop], "utf-8", "surrogatepass")
        m.stack.append("cpu" if text == "cpu" else text)
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not UTF-8 ({error.reason})") from None
    return stop


_long_unicode = _sized(4, _utf8)


def python2_string(raw: bytes) -> str | bytes:
    """A Python 2 `str`: text where it is UTF-8 (as torch.load reads it), else bytes."""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        return raw


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|[\\'\"abfnrtv\n])", re.DOTALL)
_ESCAPED = dict(zip(b"\\'\"abfnrtv", b"\\'\"\a\b\f\n\r\t\v"))


def _unescaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x":
        return bytes([int(code[1:], 16)])
    if code[:1] in b"01234567":
        return bytes([int(code, 8) & 255])
    return b"" if code == b"\n" else bytes([_ESCAPED[code[0]]])


def _string(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.string_bytes)
    text = text.rstrip(b"\r")
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise FormatError("a string without its quotes")
    m.stack.append(python2_string(_ESCAPE.sub(_unescaped, text[1:-1])))
    return at


def _unicode(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.string_bytes)
    try:
        m.stack.append(text.decode("raw-unicode-escape"))
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not raw-unicode-escape ({error.reason})") from None
    return at


# containers


def _new(kind: Callable[[], object]) -> Handler:
    def push(m: Machine, at: int) -> int:
        m.stack.append(kind())
        return at

    return push


def _empty_set(m: Machine, at: int) -> int:
    m.charge(SET_BYTES)
    m.stack.append(set())
    return at


def _tuple(m: Machine, at: int) -> int:
    items = tuple(popped(m))
    m.stack.append(items)
    return at


def _tuple_of(count: int) -> Handler:
    def push(m: Machine, at: int) -> int:
        if len(m.stack) < count:
            raise IndexError
        m.stack[-count:] = [tuple(m.stack[-count:])]
        return at

    return push


def _list(m: Machine, at: int) -> int:
    items = popped(m)
    m.stack.append(items)
    return at


def _dict(m: Machine, at: int) -> int:
    items = popped(m)
    made: dict[Any, Any] = {}
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
        raise FormatError(f"set items are added to a {type(target).__name__}")
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
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"I": _int,
    b"L": _long,
    b"J": _binint,
    b"K": _binint1,
    b"M": _binint2,
    b"\x8a": _binary_long(1),
    b"\x8b": _binary_long(4),
    b"F": _float,
    b"G": _binfloat,
    b"S": _string,
    b"T": _sized(4, python2_string, signed=True),
    b"U": _sized(1, python2_string),
    b"V": _unicode,
    b"X": _binunicode,
    b"\x8c": _sized(1, _utf8),
    b"\x8d": _sized(8, _utf8),
    b"B": _sized(4, bytes),
    b"C": _sized(1, bytes),
    b"\x8e": _sized(8, bytes),
    b"\x96": _sized(8, bytearray),
    b")": _constant(()),
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
    b"\x82": _refused("an EXT1 opcode: an entry of Python's extension registry, which only the writing process knew"),
    b"\x83": _refused("an EXT2 opcode: an entry of Python's extension registry, which only the writing process knew"),
    b"\x84": _refused("an EXT4 opcode: an entry of Python's extension registry, which only the writing process knew"),
    b"\x97": _refused("an out-of-band buffer, which is not in the file"),
    b"\x98": _refused("an out-of-band buffer, which is not in the file"),
    **_calls.HANDLERS,
}.items():
    HANDLERS[_code[0]] = _handler
