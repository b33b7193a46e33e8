"""The opcodes that push numbers, constants, strings and bytes, in the forms of all protocols."""

from __future__ import annotations

import re
from codecs import raw_unicode_escape_decode
from collections.abc import Callable
from math import inf
from struct import unpack_from

from statedict.errors import FormatError

from ._machine import Handler, Machine


def constant(value: object) -> Handler:
    def push(m: Machine, at: int) -> int:
        m.stack.append(value)
        return at

    return push


# CPython's C unpickler reads a number with a leading zero as octal, the Python one refuses it.
_DECIMAL = re.compile(rb"[+-]?(?:0|[1-9][0-9]*+)\Z")


def decimal(m: Machine, text: bytes) -> int:
    if not _DECIMAL.match(text):
        raise FormatError("expected a decimal integer")
    if len(text) > m.limits.digits:
        raise m.limits.exceeded("digits", f"an integer of {len(text):,} digits")
    return int(text)


def _int(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    # Protocol 0 does not have an opcode for booleans: it writes them as integers with a leading zero.
    m.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else decimal(m, text))
    return at


def _long(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.digits)
    m.stack.append(decimal(m, text.removesuffix(b"L")))
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
        raise FormatError(f"a string is not valid UTF-8 ({error.reason})") from None


def _binunicode(m: Machine, at: int) -> int:
    # Use the interned literal for "cpu", as in the process that wrote the file: saving again then gives the same bytes.
    length = int.from_bytes(m.data[at : at + 4], "little")
    stop = at + 4 + length
    if stop >= m.size or length > m.limits.string_bytes:
        return _long_unicode(m, at)
    try:
        text = str(m.data[at + 4 : stop], "utf-8", "surrogatepass")
        m.stack.append("cpu" if text == "cpu" else text)
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not valid UTF-8 ({error.reason})") from None
    return stop


_long_unicode = _sized(4, _utf8)


def python2_string(raw: bytes) -> str | bytes:
    """Return a Python 2 `str`: text if it is valid UTF-8 (as torch.load reads it), else bytes."""
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
        raise FormatError("a string is not enclosed in quotes")
    m.stack.append(python2_string(_ESCAPE.sub(_unescaped, text[1:-1])))
    return at


def _unicode(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.string_bytes)
    try:
        m.stack.append(raw_unicode_escape_decode(text)[0])
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not valid raw-unicode-escape ({error.reason})") from None
    return at


HANDLERS: dict[bytes, Handler] = {
    b"N": constant(None),
    b"\x88": constant(True),
    b"\x89": constant(False),
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
}
