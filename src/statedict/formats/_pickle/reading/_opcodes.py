"""The opcodes for numbers, the stack and the memo, in the forms of all protocols, and the table of all opcodes.

They follow CPython's unpickler, except that every length is checked before it is used. The opcodes for strings are in
`_strings`, those for containers in `_containers`, and those that name and call globals in `_calls`.
"""

from __future__ import annotations

import re
from math import inf
from struct import unpack_from

from statedict.errors import FormatError

from . import _calls, _containers, _strings
from ._machine import Handler, Machine
from ._records import read_records, unfold, unfold_all


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


# memo


def _got(m: Machine, index: int, at: int) -> int:
    """Push a memo slot; if that begins the record of a tensor, continue after the record."""
    value = m.memo.get(index, m)
    if value is m:
        if not unfold(m, index):
            raise FormatError(f"entry {index:,} of the memo is read before it is set")
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
    _keep(m, _decimal(m, text))
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


# CPython's C unpickler reads a number with a leading zero as octal, the Python one refuses it.
_DECIMAL = re.compile(rb"[+-]?(?:0|[1-9][0-9]*+)\Z")


def _decimal(m: Machine, text: bytes) -> int:
    if not _DECIMAL.match(text):
        raise FormatError("expected a decimal integer")
    if len(text) > m.limits.digits:
        raise m.limits.exceeded("digits", f"an integer of {len(text):,} digits")
    return int(text)


def _int(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    # Protocol 0 does not have an opcode for booleans: it writes them as integers with a leading zero.
    m.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else _decimal(m, text))
    return at


def _long(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    m.stack.append(_decimal(m, text.removesuffix(b"L")))
    return at


def _binint1(m: Machine, at: int) -> int:
    m.stack.append(m.take(at, 1)[0])
    return at + 1


def _binint(width: int, *, signed: bool = False) -> Handler:
    def push(m: Machine, at: int) -> int:
        m.stack.append(int.from_bytes(m.take(at, width), "little", signed=signed))
        return at + width

    return push


def _binary_long(width: int) -> Handler:
    def push(m: Machine, at: int) -> int:
        length = int.from_bytes(m.take(at, width), "little", signed=width == 4)
        if length < 0:
            raise FormatError(f"expected the length of an integer in bytes, found {length:,}")
        if length > m.limits.long_bytes:
            raise m.limits.exceeded("long_bytes", f"an integer of {length:,} bytes")
        m.stack.append(int.from_bytes(m.take(at + width, length), "little", signed=True))
        return at + width + length

    return push


# Possessive quantifiers: otherwise a line of digits would be tried at every split.
_FLOAT = re.compile(rb"[+-]?(?:(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+|inf|nan)\Z")


def _float(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    if not _FLOAT.match(text):
        raise FormatError("expected a floating-point number")
    number = float(text)
    if number in (inf, -inf) and text.lstrip(b"+-") != b"inf":
        # CPython's C unpickler refuses it too.
        raise FormatError("a floating-point number is out of range")
    m.stack.append(number)
    return at


def _binfloat(m: Machine, at: int) -> int:
    m.stack.append(unpack_from(">d", m.take(at, 8))[0])
    return at + 8


_NO_REGISTRY = "opcode refers to the extension registry of the writing process, which is not in the file"
_NO_BUFFER = "the pickle refers to an out-of-band buffer, which is not in the file"
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
    b")": _constant(()),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"I": _int,
    b"L": _long,
    b"J": _binint(4, signed=True),
    b"K": _binint1,
    b"M": _binint(2),
    b"\x8a": _binary_long(1),
    b"\x8b": _binary_long(4),
    b"F": _float,
    b"G": _binfloat,
    b"\x82": _refused(f"the EXT1 {_NO_REGISTRY}"),
    b"\x83": _refused(f"the EXT2 {_NO_REGISTRY}"),
    b"\x84": _refused(f"the EXT4 {_NO_REGISTRY}"),
    **dict.fromkeys((b"\x97", b"\x98"), _refused(_NO_BUFFER)),
    **_strings.HANDLERS,
    **_containers.HANDLERS,
    **_calls.HANDLERS,
}.items():
    HANDLERS[_code[0]] = _handler
