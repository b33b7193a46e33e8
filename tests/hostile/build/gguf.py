"""GGUF files: a header of metadata and entries of tensors, and the tensors' bytes at multiples of the alignment."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .zips import FOUR

TYPES = {"B": 0, "b": 1, "H": 2, "h": 3, "I": 4, "i": 5, "f": 6, "?": 7, "Q": 10, "q": 11, "d": 12}
TEXT, ARRAY = 8, 9
F32 = 0


class Typed(NamedTuple):
    """A value of the metadata with its type: a code of `struct`, or that of the items in a list of them."""

    type: str
    value: Any


class Tensor(NamedTuple):
    """An entry, with the shape as NumPy writes it; `offset` is where the bytes are, by default after those before."""

    name: str | bytes = "w"
    shape: Sequence[int] = (4,)
    kind: int = F32
    data: bytes = FOUR
    offset: int | None = None


def gguf(
    tensors: Sequence[Tensor] = (Tensor(),),
    metadata: Mapping[str, Any] | Sequence[tuple[str, Any]] = (),
    *,
    order: str = "<",
    version: int = 3,
    alignment: int = 32,
    counts: tuple[int | None, int | None] = (None, None),
) -> bytes:
    """The file. `counts` are those of tensors and of values that the header claims, if these are not true."""
    items = list(metadata.items() if isinstance(metadata, Mapping) else metadata)
    claimed = [len(each) if count is None else count for each, count in zip((tensors, items), counts)]
    header = b"GGUF" + struct.pack(f"{order}IQQ", version, *claimed)
    for name, value in items:
        header += text(name, order) + typed(value, order)
    body = b""
    for name, shape, kind, data, offset in tensors:
        header += text(name, order) + struct.pack(f"{order}I{len(shape)}QI", len(shape), *reversed(shape), kind)
        header += struct.pack(f"{order}Q", len(body) if offset is None else offset)
        if offset is None:
            body += data + bytes(-len(data) % alignment)
    return header + bytes(-len(header) % alignment) + body


def text(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(f"{order}Q", len(raw)) + raw


def typed(value: Any, order: str = "<") -> bytes:
    """A value after its type; bytes are written as they are."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return struct.pack(f"{order}I", TEXT) + text(value, order)
    if isinstance(value, Typed) and not isinstance(value.value, list):
        return struct.pack(f"{order}I{value.type}", TYPES[value.type], value.value)
    items = value.value if isinstance(value, Typed) else value
    if isinstance(value, Typed):
        inner, parts = TYPES[value.type], struct.pack(f"{order}{len(items)}{value.type}", *items)
    else:
        whole = [typed(item, order) for item in items]
        inner, parts = TEXT if isinstance(items[0], str) else ARRAY, b"".join(item[4:] for item in whole)
    return struct.pack(f"{order}IIQ", ARRAY, inner, len(items)) + parts
