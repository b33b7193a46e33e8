"""Safetensors files: eight bytes of header length, a JSON header, the tensors' bytes."""

from __future__ import annotations

import json
import struct
from typing import Any

from .zips import FOUR


def entry(dtype: Any = "F32", shape: Any = (4,), start: int = 0, stop: int = 16, **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}


def safetensors(header: Any = None, data: bytes = FOUR, *, length: int | None = None) -> bytes:
    """The file; `header` is the header itself, or what is to be written as JSON (a tensor "w", unless told
    otherwise)."""
    header = {"w": entry()} if header is None else header
    raw = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def w(written: str) -> bytes:
    """A header of one tensor "w" whose shape is written as given."""
    return b'{"w":{"dtype":"F32","shape":%s,"data_offsets":[0,16]}}' % written.encode()
