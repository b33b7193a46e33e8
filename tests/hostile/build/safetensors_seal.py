"""Safetensors files with the seal that this library writes, made by hand."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping

from .tensors import entry
from .zips import FOUR


def sealed(other: bytes, crc: int | None = None, metadata: Mapping[str, str] | None = None) -> bytes:
    """A file of "w" and of "v", which is said to be tied to it; `crc` is what is said to be the checksum of `other`."""
    crcs = zlib.crc32(FOUR), zlib.crc32(other) if crc is None else crc
    said = {"statedict.crc32": f"{crcs[0]:08x}{crcs[1]:08x}", "statedict.ties": '[["w","v"]]', **(metadata or {})}
    header = {"w": entry(), "v": entry(start=16, stop=32)}
    begin = b'{"__metadata__" :{"statedict.header":"00000000",'
    text = begin + json.dumps(said).encode()[1:] + b"," + json.dumps(header).encode()[1:]
    text += b" " * (-len(text) % 8)
    text = text.replace(b"00000000", b"%08x" % zlib.crc32(text), 1)
    return struct.pack("<Q", len(text)) + text + FOUR + other
