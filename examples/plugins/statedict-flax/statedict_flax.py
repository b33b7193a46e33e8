"""Flax msgpack files for statedict: what `flax.serialization.to_bytes` writes, read and written without Flax.

MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md) is values one after the other, each after a byte that
says which kind it is. Flax adds extension types for arrays (shape, dtype, bytes), NumPy scalars and complex numbers, and
stores arrays over 1 GiB in chunks. This module parses the values itself: a msgpack library would read all arrays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from statedict.errors import FormatError, SaveError, TruncatedError
from statedict.formats import Checkpoint, File, FileTensors, Format, Leaf, Limits, leaf_of

NDARRAY, COMPLEX, SCALAR = 1, 2, 3
CHUNKED = "__msgpack_chunked_array__"
# Flax stores larger arrays in chunks of this many bytes.
LARGEST = 1 << 30
DEEPEST = 100
AHEAD = 64 << 10
# A map, whose first key is a string.
BEGIN = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)[\xa1-\xbf\xd9][ -~\x80-\xff]", re.DOTALL)
# Kinds of values whose first byte is followed by a number, or by a length of 1, 2 or 4 bytes.
NUMBERS = dict(enumerate("fdBHIQbhiq", 0xCA))
TEXT, BINARY, EXTENSION = dict(enumerate("BHI", 0xD9)), dict(enumerate("BHI", 0xC4)), dict(enumerate("BHI", 0xC7))
LIST, MAP = dict(enumerate("HI", 0xDC)), dict(enumerate("HI", 0xDE))
FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}


def read(file: File, limits: Limits) -> Checkpoint:
    """Open the Checkpoint in a file; its object is the tree, with leaves for arrays."""
    reader = _Reader(file, limits)
    tree = reader.value("", 0)
    if reader.at != file.size:
        raise reader.invalid(f"{file.size - reader.at:,} bytes follow the value")
    notes = ["the file has no checksums: damage to its tensors cannot be detected"]
    return Checkpoint(
        file.name, "flax", tree, size=file.size, producer="Flax", notes=notes, checks=reader.tensors.checks
    )


class _Reader:
    """Reads values in order, but skips the bytes of arrays."""

    def __init__(self, file: File, limits: Limits) -> None:
        self.tensors = FileTensors(file, limits)
        self.at = 0
        self._file = file
        self._limits = limits
        self._start, self._buffer = 0, b""

    def value(self, path: str, depth: int) -> Any:
        """Return the next value; `path` is where in the tree it is, for messages and as the name of a tensor."""
        if depth > DEEPEST:
            raise self.invalid(f"the values are nested more than {DEEPEST} deep")
        code = self._number("B")
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0x90:
            return self._map(code & 15, path, depth)
        if code < 0xA0:
            return self._list(code & 15, path, depth)
        if code < 0xC0:
            return self._text(code & 31)
        if code in PLAIN:
            return PLAIN[code]
        if code in NUMBERS:
            return self._number(NUMBERS[code])
        if code in TEXT:
            return self._text(self._number(TEXT[code]))
        if code in BINARY:
            return self._take(self._length(self._number(BINARY[code])))
        if code in LIST:
            return self._list(self._number(LIST[code]), path, depth)
        if code in MAP:
            return self._map(self._number(MAP[code]), path, depth)
        if code in EXTENSION or code in FIXED:
            length = FIXED.get(code) or self._number(EXTENSION[code])
            return self._extension(self._number("b"), self.at + length, path, depth)
        raise self.invalid(f"no value begins with the byte {code:#x}")

    def _list(self, count: int, path: str, depth: int) -> list[Any]:
        return [self.value(f"{path}/{n}" if path else str(n), depth + 1) for n in range(count)]

    def _map(self, count: int, path: str, depth: int) -> Any:
        found: dict[str | int, Any] = {}
        for _ in range(count):
            key = self.value(path, depth + 1)
            if not isinstance(key, (str, int)) or key in found:
                raise self.invalid(f"a key in {path!r} is not text, or is there twice")
            found[key] = self.value(f"{path}/{key}" if path else str(key), depth + 1)
        return self._joined(found, path) if CHUNKED in found else found

    def _joined(self, found: Mapping[str | int, Any], path: str) -> Leaf:
        """Return the leaf of an array in chunks; its shape and chunks are maps with the keys "0", "1" …"""
        shape, chunks = (_in_order(found.get(key)) for key in ("shape", "chunks"))
        if not chunks or not all(isinstance(chunk, Leaf) for chunk in chunks):
            raise self.invalid(f"the array in chunks at {path!r} does not have chunks")
        return self.tensors.joined(path, shape, chunks)

    def _extension(self, kind: int, end: int, path: str, depth: int) -> Any:
        if kind in (NDARRAY, SCALAR):
            value: Any = self._array(path, depth)
        else:
            value = self.value(path, depth + 1)
            if kind != COMPLEX or not isinstance(value, list) or list(map(type, value)) != [float, float]:
                raise self.invalid(f"the value at {path!r} is of the unknown kind {kind}")
            value = complex(*value)
        if self.at != end:
            raise self.invalid(f"the value at {path!r} ends at byte {self.at:,}, and should end at byte {end:,}")
        return value

    def _array(self, path: str, depth: int) -> Leaf:
        count = self._number("B")
        shape, dtype, code = self.value(path, depth + 1), self.value(path, depth + 1), self._number("B")
        if count != 0x93 or not isinstance(shape, list) or not isinstance(dtype, str) or code not in BINARY:
            raise self.invalid(f"the array at {path!r} is not a shape, a dtype and bytes")
        nbytes = self._number(BINARY[code])
        self.at += nbytes
        return self.tensors.tensor(path, dtype, shape, self.at - nbytes, nbytes)

    def _text(self, nbytes: int) -> str:
        try:
            return self._take(self._length(nbytes)).decode()
        except UnicodeDecodeError as error:
            raise self.invalid(f"a text is not valid UTF-8: {error.reason}") from error

    def _length(self, nbytes: int) -> int:
        if nbytes > self._limits.string_bytes:
            raise self._limits.exceeded("string_bytes", f"a string of {nbytes:,} bytes")
        return nbytes

    def _number(self, code: str) -> Any:
        return struct.unpack(f">{code}", self._take(struct.calcsize(f">{code}")))[0]

    def _take(self, nbytes: int) -> bytes:
        """Return the next bytes."""
        if self.at + nbytes > self._file.size:
            raise TruncatedError(f"a value needs {nbytes:,} more bytes", file=self._file.name, offset=self.at)
        if not self._start <= self.at <= self.at + nbytes <= self._start + len(self._buffer):
            self._start = self.at
            self._buffer = self._file.read(self.at, min(max(nbytes, AHEAD), self._file.size - self.at))
        self.at += nbytes
        return self._buffer[self.at - nbytes - self._start : self.at - self._start]

    def invalid(self, problem: str) -> FormatError:
        return FormatError(problem, file=self._file.name, offset=self.at)


def _in_order(values: object) -> list[Any]:
    return [values[str(n)] for n in range(len(values)) if str(n) in values] if isinstance(values, dict) else []


def write(obj: Any, metadata: Mapping[str, str] | None) -> Iterator[bytes | Leaf]:
    """Yield the content of the file with a tree of dicts and lists of tensors and plain values."""
    if metadata:
        raise SaveError("a Flax file cannot store metadata")
    return _packed(obj, "the tree", 0)


def _packed(value: Any, path: str, depth: int) -> Iterator[bytes | Leaf]:
    leaf = leaf_of(value)
    if isinstance(leaf, Leaf):
        yield from _array_packed(leaf, path)
    elif isinstance(value, Mapping) and depth < DEEPEST:
        # A StateDict would give its tensors as arrays of a library.
        yield _head(len(value), 0x80, 15, MAP)
        for key in value:
            if not isinstance(key, str):
                raise SaveError(f"{path} has the key {key!r}, which is not text")
            yield _text_packed(key)
            inner = value.leaf(key) if hasattr(value, "leaf") else None
            yield from _packed(value[key] if inner is None else inner, f"{path}/{key}", depth + 1)
    elif isinstance(value, (list, tuple)) and depth < DEEPEST:
        yield _head(len(value), 0x90, 15, LIST)
        for n, item in enumerate(value):
            yield from _packed(item, f"{path}/{n}", depth + 1)
    else:
        yield _plain_packed(value, path)


def _array_packed(leaf: Leaf, path: str) -> Iterator[bytes | Leaf]:
    spec = leaf.spec
    if spec.nbytes > LARGEST:
        raise SaveError(f"{path} has {spec.nbytes:,} bytes: arrays over {LARGEST:,} bytes are not written")
    shape = b"".join(_plain_packed(size, path) for size in spec.shape)
    inner = b"\x93" + _head(len(spec.shape), 0x90, 15, LIST) + shape + _text_packed(spec.dtype.name)
    inner += _head(spec.nbytes, 0, -1, BINARY)
    length = len(inner) + spec.nbytes
    fixed = {size: code for code, size in FIXED.items()}
    head = bytes([fixed[length]]) if length in fixed else _head(length, 0, -1, EXTENSION)
    yield head + bytes([NDARRAY]) + inner
    yield leaf


def _head(length: int, short: int, largest: int, codes: Mapping[int, str]) -> bytes:
    """Return the first bytes of a value of this length: in one byte up to `largest`, else a code and the length."""
    if length <= largest:
        return bytes([short | length])
    for code, letter in codes.items():
        if length < 1 << 8 * struct.calcsize(f">{letter}"):
            return bytes([code]) + struct.pack(f">{letter}", length)
    raise SaveError(f"a value of length {length:,} is too large for MessagePack")


def _text_packed(text: str) -> bytes:
    raw = text.encode()
    return _head(len(raw), 0xA0, 31, TEXT) + raw


def _plain_packed(value: Any, path: str) -> bytes:
    if value is None or isinstance(value, bool):
        return bytes([next(code for code, plain in PLAIN.items() if plain is value)])
    if isinstance(value, str):
        return _text_packed(value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, complex):
        return b"\xc7\x13\x02\x92" + struct.pack(">BdBd", 0xCB, value.real, 0xCB, value.imag)
    if isinstance(value, int) and -32 <= value < 128:
        return struct.pack("b", value)
    for code in (0xCC, 0xCD, 0xCE, 0xCF, 0xD0, 0xD1, 0xD2, 0xD3) if isinstance(value, int) else ():
        try:
            return struct.pack(f">B{NUMBERS[code]}", code, value)
        except struct.error:
            continue
    raise SaveError(f"{path} is a {type(value).__name__}, which a Flax file cannot store")


FORMAT = Format(
    "flax", read, begins=lambda head, file: BEGIN.match(head) is not None, suffixes=(".msgpack",), write=write
)
