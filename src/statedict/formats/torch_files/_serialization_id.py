"""The last member of a torch zip: forty digits. PyTorch computes them from a hash that differs between machines; ours
come from the CRC-32s of all members before, so that equal content gives equal bytes, and our own files can be
recognised.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from ..zip._archive import Archive
from ..zip._members import crcs_of

NAME = ".data/serialization_id"
DIGITS = 40


def serialization_id(crcs: Sequence[int]) -> bytes:
    """Return the digits for members with these CRC-32s, in order.

    >>> serialization_id([1, 2])
    b'3604640817359706859843878024071385774900'
    """
    import hashlib

    digest = hashlib.sha256(struct.pack(f"<{len(crcs)}I", *crcs)).digest()
    return f"{int.from_bytes(digest, 'little') % 10**DIGITS:0{DIGITS}}".encode()


def is_ours(archive: Archive, folder: str) -> bool:
    """Return whether our writer made the archive, by the CRC-32 of its digits in the directory; no member is read."""
    last = archive.members.get(folder + NAME)
    if last is None or last.nbytes != DIGITS or not last.crc:
        return False
    *others, crc = crcs_of(archive.members)
    return last.name == [*archive.members][-1] and crc == zlib.crc32(serialization_id(others))
