"""The opcodes for strings and bytes, in the forms of all protocols."""

from __future__ import annotations

import re
from codecs import raw_unicode_escape_decode
from collections.abc import Callable

from statedict.errors import FormatError

from ._machine import Handler, Machine


def _sized(width: int, decode: Callable[[bytes], object], *, signed: bool = False) -> Handler:
    def push(m: Machine, at: int) -> int:
        length = int.from_bytes(m.take(at, width), "little", signed=signed)
        if length < 0:
            raise FormatError(f"expected the length of a string in bytes, found {length:,}")
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
    text = _utf8(m.data[at + 4 : stop])
    m.stack.append("cpu" if text == "cpu" else text)
    return stop


_long_unicode = _sized(4, _utf8)


def _python2_string(raw: bytes) -> str | bytes:
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
    m.stack.append(_python2_string(_ESCAPE.sub(_unescaped, text[1:-1])))
    return at


def _unicode(m: Machine, at: int) -> int:
    text, at = m.line(at, m.limits.string_bytes)
    try:
        m.stack.append(raw_unicode_escape_decode(text)[0])
    except UnicodeDecodeError as error:
        raise FormatError(f"a string is not valid raw-unicode-escape ({error.reason})") from None
    return at


HANDLERS: dict[bytes, Handler] = {
    b"S": _string,
    b"T": _sized(4, _python2_string, signed=True),
    b"U": _sized(1, _python2_string),
    b"V": _unicode,
    b"X": _binunicode,
    b"\x8c": _sized(1, _utf8),
    b"\x8d": _sized(8, _utf8),
    b"B": _sized(4, bytes),
    b"C": _sized(1, bytes),
    b"\x8e": _sized(8, bytes),
    b"\x96": _sized(8, bytearray),
}
