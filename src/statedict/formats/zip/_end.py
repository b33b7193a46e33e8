"""Locate a zip's central directory from its end records: one interpretation, or an error.

Theory of operation. A zip is read from its end: the end record (22 bytes, then a comment) gives the position of the
directory. Beyond 4 GiB or 65,535 entries its fields are all ones, and a zip64 end record has the true numbers; it is
found through a locator directly before the end record. PyTorch always writes all three. Readers handle contradictions
differently, so none are allowed: the directory ends where the end records begin, and the end record ends the file.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from statedict.files import File

from ...errors import FormatError, TruncatedError

END = struct.Struct("<4sHHHHIIH")
LOCATOR = struct.Struct("<4sIQI")
END64 = struct.Struct("<4sQHHIIQQQQ")
COMMENT = 0xFFFF
SIGNATURE = re.compile(rb"PK[\1-\x08]")


class Directory(NamedTuple):
    """The central directory: its offset, its length, its number of entries; and the archive's comment."""

    offset: int
    nbytes: int
    entries: int
    comment: bytes = b""


def find_directory(file: File, *, trailing: bool = False) -> Directory:
    """Return the directory according to the end records; raise TruncatedError if they are missing, FormatError if they
    contradict each other or the file.
    """
    at = _find_end(file, trailing)
    _, disk, first_disk, here, count, nbytes, offset, length = END.unpack(file.read(at, END.size))
    if disk or first_disk or here != count:
        raise FormatError("the archive is split over several disks", file=file.name, offset=at)
    found, end = Directory(offset, nbytes, count), at
    wide = _find_wide(file, at)
    if wide is not None:
        found, end = _agreed(file, at, wide, found), at - LOCATOR.size - END64.size
    elif 0xFFFFFFFF in (offset, nbytes):
        raise FormatError("the zip64 end record is missing", file=file.name, offset=at)
    if found.offset + found.nbytes != end:
        raise FormatError(
            f"the directory should end at byte {end:,}, where the end record begins, "
            f"but the end record says bytes {found.offset:,} to {found.offset + found.nbytes:,}",
            file=file.name,
            offset=at,
        )
    return found._replace(comment=file.read(at + END.size, length))


def _find_end(file: File, trailing: bool) -> int:
    at = file.size - END.size
    tail_start = max(at - COMMENT, 0)
    if at >= 0 and file.read(at, END.size)[:4] == b"PK\5\6" and file.read(file.size - 2, 2) == b"\0\0":
        return at
    tail = file.read(tail_start, file.size - tail_start)
    place = tail.rfind(b"PK\5\6")
    if place < 0 or place + END.size > len(tail):
        raise TruncatedError(
            f"the end record of the archive is missing: the file is truncated after {file.size:,} bytes, or {_zeros(tail)}",
            file=file.name,
            hint="download or save it again",
        )
    comment = int.from_bytes(tail[place + 20 : place + 22], "little")
    rest = len(tail) - place - END.size
    if rest < comment:
        raise TruncatedError(f"the file is truncated within the comment, its last {comment} bytes", file=file.name)
    if (rest > comment and not trailing) or SIGNATURE.search(tail, place + END.size):
        raise FormatError(
            f"{rest:,} bytes follow the end of the archive", file=file.name, offset=tail_start + place + END.size
        )
    return tail_start + place


def _zeros(tail: bytes) -> str:
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    return f"its last {zeros:,} bytes were never written (they are zero)" if zeros > 64 else "overwritten"


def _find_wide(file: File, at: int) -> tuple[int, int, int] | None:
    """Return (offset, nbytes, count) from the zip64 end record, or None if it is missing."""
    place = at - LOCATOR.size
    if place < END64.size or file.read(place, 4) != b"PK\6\7":
        return None
    _, disk, end, disks = LOCATOR.unpack(file.read(place, LOCATOR.size))
    if disk or disks != 1 or end != place - END64.size:
        raise FormatError("the zip64 end record is not directly before its locator", file=file.name, offset=place)
    signature, size, _, _, disk, first_disk, here, count, nbytes, offset = END64.unpack(file.read(end, END64.size))
    if signature != b"PK\6\6" or size != END64.size - 12 or disk or first_disk or here != count:
        raise FormatError("the zip64 end record is damaged", file=file.name, offset=end)
    return offset, nbytes, count


def _agreed(file: File, at: int, wide: tuple[int, int, int], narrow: Directory) -> Directory:
    """Return the zip64 numbers if each equals that of the end record, or replaces one that is all ones."""
    for value, short, ones in zip(wide, narrow, (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF)):
        if short not in (value, ones):
            raise FormatError(
                f"the end record and the zip64 end record disagree: {short:,} and {value:,}", file=file.name, offset=at
            )
    return Directory(*wide)
