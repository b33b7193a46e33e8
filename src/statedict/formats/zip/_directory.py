"""The central directory of a zip: where it is according to the end records, and its entries with the values they state.

Theory of operation. A zip is read from its end: the end record (22 bytes, then a comment) gives the position of the
directory. Beyond 4 GiB or 65,535 entries its fields are all ones, and a zip64 end record has the true numbers; it is
found through a locator directly before the end record. PyTorch always writes all three. Readers handle contradictions
differently, so none are allowed: the directory ends where the end records begin, and the end record ends the file.

For archives of many thousands of entries `_directory_columns` reads the entries with arrays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from statedict.files import File

from ...errors import FormatError, TruncatedError
from .._limits import Limits

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


CENTRAL = struct.Struct("<4s2x2x2HxxxxIIIHHHH2xII")
STORED, DEFLATED = 0, 8
DESCRIPTOR, UTF8 = 1 << 3, 1 << 11
# Compression level hints, and the two flags above: all flags that do not affect reading, or are supported.
KNOWN_FLAGS = 1 << 1 | 1 << 2 | DESCRIPTOR | UTF8
WIDE = 1
# The extra field with another name for the member, which some readers prefer.
UNICODE_PATH = 0x7075
# External attributes: DOS's bit for a folder; in the upper half Unix's file type, 0 if it is not stated.
FOLDER = 0x10
KIND, PLAIN_FILE = 0o170000, 0o100000
ONES = 0xFFFFFFFF


class DirectoryEntry(NamedTuple):
    """A member according to the central directory. `header` is the offset of its local header; `wide`: zip64; `extra`:
    its extra field.
    """

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    nbytes: int
    header: int
    wide: bool
    extra: bytes = b""


def read_entries(directory: bytes, count: int, file: str) -> list[DirectoryEntry]:
    """Return the entries of a directory that has exactly `count` of them and nothing else."""
    entries: list[DirectoryEntry] = []
    at = 0
    for _ in range(count):
        if at + CENTRAL.size > len(directory):
            raise FormatError(f"the directory ends after {len(entries)} of {count} entries", file=file)
        entry, at = _entry(directory, at, file)
        entries.append(entry)
    if at != len(directory):
        raise FormatError(f"{len(directory) - at:,} bytes follow the {count} entries of the directory", file=file)
    return entries


def _entry(directory: bytes, at: int, file: str) -> tuple[DirectoryEntry, int]:
    signature, flags, method, crc, packed, nbytes, name_length, extra_length, comment, disk, attributes, header = (
        CENTRAL.unpack_from(directory, at)
    )
    start = at + CENTRAL.size
    end = start + name_length + extra_length + comment
    if signature != b"PK\1\2" or end > len(directory):
        raise FormatError(f"the directory is damaged at its offset {at:,}", file=file)
    name = decode(directory[start : start + name_length], file)
    wide = False
    extra = directory[start + name_length : start + name_length + extra_length]
    if extra:
        found = wide_fields(extra, name, file)
        if found is not None:
            wide = True
            nbytes, packed, header = widened((nbytes, packed, header), found, name, file)
    if ONES in (packed, nbytes, header) and not wide:
        raise FormatError("its zip64 sizes are missing", file=file, member=name)
    entry = DirectoryEntry(name, flags, method, crc, packed, nbytes, header, wide, extra)
    check_entry(entry, disk, attributes, file)
    return entry, end


def is_special(attributes: int) -> bool:
    """Return whether a member's external attributes mark it as something other than a regular file."""
    return bool(attributes & FOLDER) or attributes >> 16 & KIND not in (0, PLAIN_FILE)


def decode(name: bytes, file: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"the name {name!r} in the directory is not UTF-8", file=file) from None


def check_entry(entry: DirectoryEntry, disk: int, attributes: int, file: str) -> None:
    """Raise FormatError for unsupported or ambiguous entries: encryption, other compressions, other disks, impossible
    sizes.
    """
    problem = None
    if disk:
        problem = f"it is on another disk: number {disk}"
    elif entry.flags & ~KNOWN_FLAGS:
        problem = "it is encrypted" if entry.flags & 1 else f"its flags {entry.flags:#x} are not supported"
    elif entry.method not in (STORED, DEFLATED):
        problem = f"unsupported compression method {entry.method}; expected stored (0) or deflated (8)"
    elif entry.method == STORED and entry.packed != entry.nbytes:
        problem = f"it is stored without compression, but its sizes differ: {entry.packed:,} and {entry.nbytes:,} bytes"
    elif entry.nbytes and is_special(attributes):
        problem = f"it has {entry.nbytes:,} bytes, but is marked as a directory or a link, which PyTorch does not read"
    elif not entry.flags & UTF8 and not entry.name.isascii():
        problem = "its name is not marked as UTF-8: other readers decode it differently"
    if problem is not None:
        raise FormatError(problem, file=file, member=entry.name)


def extra_fields(extra: bytes, name: str, file: str) -> list[tuple[int, bytes]]:
    """Return the (id, content) records of an extra field; raise FormatError if they do not fill it exactly."""
    fields = []
    at = 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise FormatError("its extra field is damaged", file=file, member=name)
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4 + length
        if at > len(extra):
            raise FormatError("its extra field is damaged", file=file, member=name)
        fields.append((kind, extra[at - length : at]))
    return fields


def wide_fields(extra: bytes, name: str, file: str) -> tuple[int, ...] | None:
    """Return the numbers of the zip64 record, or None if it is missing; raise FormatError for a second name."""
    fields = extra_fields(extra, name, file)
    if any(kind == UNICODE_PATH for kind, _ in fields):
        raise FormatError("it has a second name in an extra field", file=file, member=name)
    found = [content for kind, content in fields if kind == WIDE]
    if not found:
        return None
    if len(found) > 1 or len(found[0]) % 8 or len(found[0]) > 24:
        raise FormatError("its zip64 record is damaged", file=file, member=name)
    return struct.unpack(f"<{len(found[0]) // 8}Q", found[0])


def widened(narrow: Sequence[int], wide: Sequence[int], name: str, file: str) -> list[int]:
    """Return the fields with those that are all ones replaced from the zip64 record, which must have exactly these."""
    if len(wide) != sum(value == ONES for value in narrow):
        raise FormatError("its zip64 record does not have exactly the missing fields", file=file, member=name)
    rest = iter(wide)
    return [next(rest) if value == ONES else value for value in narrow]


def check_names(names: Sequence[str], limits: Limits, file: str) -> None:
    """Raise FormatError for names that readers could interpret differently, or that lead outside of the archive."""
    if not names:
        return
    joined = "\n".join(names)
    if joined.count("\n") != len(names) - 1 or any(mark in joined for mark in "\0\\\r"):
        raise FormatError("the name of a member contains a control character or a backslash", file=file)
    longest = max(map(len, names))
    if longest > limits.zip_name_bytes:
        raise limits.exceeded("zip_name_bytes", f"a member name of {longest:,} characters").located(file=file)
    framed = f"\n{joined}\n"
    # Searching for fixed texts is several times as fast as the expression, which runs only if one of them occurs.
    outside = OUTSIDE.search(joined) if any(mark in framed for mark in SUSPECT) else None
    if outside:
        name = names[joined.count("\n", 0, outside.start())]
        raise FormatError(f"the member name {name!r} is not a plain relative path", file=file)
    if len(set(names)) != len(names):
        raise FormatError(f"two members have the same name: {_repeated(names, str)!r}", file=file)


def check_case(names: str, file: str) -> None:
    """Raise FormatError for names (one a line) that differ only in case or in Unicode composition: PyTorch confuses
    them.
    """
    folded = _folded(names)
    # If folding changes no name, they are still distinct.
    if folded != names and len(set(folded.split("\n"))) != names.count("\n") + 1:
        repeated = _repeated(names.split("\n"), _folded)
        raise FormatError(f"two members have names that differ only in case: {repeated!r}", file=file)


def _folded(names: str) -> str:
    if names.isascii():
        return names.lower()
    from unicodedata import normalize

    return normalize("NFC", names.casefold())


def _repeated(names: Sequence[str], fold: Callable[[str], str]) -> str:
    seen: set[str] = set()
    for name in names:
        if fold(name) in seen:
            return name
        seen.add(fold(name))
    return ""


# An absolute path, a drive, an empty name, or a component that is "." or "..".
OUTSIDE = re.compile(r"^(?:/|[A-Za-z]:/|$)|(?:^|/)\.\.?(?:/|$)", re.MULTILINE)
SUSPECT = ("\n/", "\n\n", ":/", *(f"{a}{dots}{b}" for dots in (".", "..") for a in "\n/" for b in "\n/"))
