"""NumPy's files: an array with its header, and a zip of them."""

from __future__ import annotations

import struct

from .zips import FOUR, Member, archive

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"


def npy(header: str = HEADER, data: bytes = FOUR, version: tuple[int, int] = (1, 0)) -> bytes:
    length = "<H" if version == (1, 0) else "<I"
    raw = header.encode()
    raw += b" " * (-(10 + len(raw) + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack(length, len(raw)) + raw + data


def npz(**arrays: bytes) -> bytes:
    return archive(*(Member(f"{name}.npy".encode(), raw) for name, raw in (arrays or {"w": npy()}).items()))
