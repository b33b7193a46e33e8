"""Safetensors files with the seal that this library writes, made by hand."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

from .tensors import entry
from .zips import FOUR


def sealed(of: str = "w", place: int = 1, metadata: Mapping[str, str] | None = None) -> bytes:
    """A file of "w", whose metadata says that "v" is tied to the tensor `of` and is at `place` in the state."""
    crc = f"{zlib.crc32(FOUR):08x}"
    said = {"statedict.crc32": crc, "statedict.ties": json.dumps({"v": place}), "v": of, **(metadata or {})}
    begin = b'{"__metadata__" :{"statedict.header":"00000000",'
    text = begin + json.dumps(said).encode()[1:] + b"," + json.dumps({"w": entry()}).encode()[1:]
    text += b" " * (-len(text) % 8)
    text = text.replace(b"00000000", b"%08x" % zlib.crc32(text), 1)
    return struct.pack("<Q", len(text)) + text + FOUR
