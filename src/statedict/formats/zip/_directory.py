"""The central directory of a zip, as entries: what each claims, none of it believed further than the directory itself.

For archives of many thousands of entries `_directory_columns` does the same with arrays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import FormatError
from .._limits import Limits

CENTRAL = struct.Struct("<4s2x2x2HxxxxIIIHHHH2xII")
STORED, DEFLATED = 0, 8
DESCRIPTOR, UTF8 = 1 << 3, 1 << 11
# Compression level hints, and the two above: all that says nothing about how the bytes are to be read, or is understood.
KNOWN_FLAGS = 1 << 1 | 1 << 2 | DESCRIPTOR | UTF8
WIDE = 1
# The extra field with another name for the member, which some readers prefer.
UNICODE_PATH = 0x7075
# What the external attributes mark: DOS's bit of a folder; in the upper half Unix's kind of file, 0 where it is not told.
FOLDER = 0x10
KIND, PLAIN_FILE = 0o170000, 0o100000
ONES = 0xFFFFFFFF


class Entry(NamedTuple):
    """What the central directory says of a member. `header` is where its local header begins; `wide`: in zip64; `extra`:
    its extra field."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    nbytes: int
    header: int
    wide: bool
    extra: bytes = b""


def read_entries(directory: bytes, count: int, file: str) -> list[Entry]:
    """The entries of a directory that has `count` of them and nothing else."""
    entries: list[Entry] = []
    at = 0
    for _ in range(count):
        if at + CENTRAL.size > len(directory):
            raise FormatError(f"the directory ends after {len(entries)} of {count} entries", file=file)
        entry, at = _entry(directory, at, file)
        entries.append(entry)
    if at != len(directory):
        raise FormatError(
            f"the directory goes on for {len(directory) - at:,} bytes after its {count} entries", file=file
        )
    return entries


def _entry(directory: bytes, at: int, file: str) -> tuple[Entry, int]:
    signature, flags, method, crc, packed, nbytes, name_length, extra_length, comment, disk, attributes, header = (
        CENTRAL.unpack_from(directory, at)
    )
    start = at + CENTRAL.size
    end = start + name_length + extra_length + comment
    if signature != b"PK\1\2" or end > len(directory):
        raise FormatError(f"the directory is damaged at its byte {at:,}", file=file)
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
    entry = Entry(name, flags, method, crc, packed, nbytes, header, wide, extra)
    check_entry(entry, disk, attributes, file)
    return entry, end


def is_special(attributes: int) -> bool:
    """Whether a member's external attributes say that it is something else than a file."""
    return bool(attributes & FOLDER) or attributes >> 16 & KIND not in (0, PLAIN_FILE)


def decode(name: bytes, file: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"the name {name!r} in the directory is not UTF-8", file=file) from None


def check_entry(entry: Entry, disk: int, attributes: int, file: str) -> None:
    """Refuse what no reader should guess about: encryption, other compressions, other disks, sizes that cannot be."""
    problem = None
    if disk:
        problem = f"it is said to be on disk {disk}"
    elif entry.flags & ~KNOWN_FLAGS:
        problem = "it is encrypted" if entry.flags & 1 else f"its flags {entry.flags:#x} are not known"
    elif entry.method not in (STORED, DEFLATED):
        problem = f"it is compressed by method {entry.method}; only stored (0) and deflated (8) members are read"
    elif entry.method == STORED and entry.packed != entry.nbytes:
        problem = f"it is stored, but its sizes differ: {entry.packed:,} and {entry.nbytes:,} bytes"
    elif entry.nbytes and is_special(attributes):
        problem = f"it has {entry.nbytes:,} bytes, but is marked as a folder or a link: PyTorch would not read them"
    elif not entry.flags & UTF8 and not entry.name.isascii():
        problem = "its name is not marked as UTF-8: other readers take it for another name"
    if problem is not None:
        raise FormatError(problem, file=file, member=entry.name)


def extra_fields(extra: bytes, name: str, file: str) -> list[tuple[int, bytes]]:
    """The (id, content) records that an extra field consists of, exactly."""
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
    """The numbers of the one zip64 record, or None where there is none; FormatError where there is a second name."""
    fields = extra_fields(extra, name, file)
    if any(kind == UNICODE_PATH for kind, _ in fields):
        raise FormatError("it has a second name, in an extra field", file=file, member=name)
    found = [content for kind, content in fields if kind == WIDE]
    if not found:
        return None
    if len(found) > 1 or len(found[0]) % 8 or len(found[0]) > 24:
        raise FormatError("its zip64 record is damaged", file=file, member=name)
    return struct.unpack(f"<{len(found[0]) // 8}Q", found[0])


def widened(narrow: Sequence[int], wide: Sequence[int], name: str, file: str) -> list[int]:
    """The fields, those that are all ones taken from the zip64 record, which must have exactly these."""
    if len(wide) != sum(value == ONES for value in narrow):
        raise FormatError("its zip64 record has another number of fields than are missing", file=file, member=name)
    rest = iter(wide)
    return [next(rest) if value == ONES else value for value in narrow]


def check_names(names: Sequence[str], limits: Limits, file: str) -> None:
    """Refuse names that two readers could take for different ones, or for a place outside the archive."""
    if not names:
        return
    joined = "\n".join(names)
    if joined.count("\n") != len(names) - 1 or any(mark in joined for mark in "\0\\\r"):
        raise FormatError("a member's name holds a control character or a backslash", file=file)
    longest = max(map(len, names))
    if longest > limits.zip_name_bytes:
        raise limits.exceeded("zip_name_bytes", f"a member's name of {longest:,} characters").located(file=file)
    framed = f"\n{joined}\n"
    # Eleven looks for a fixed text take 3 ms for 32,000 names, the expression 20; it is asked where one of them is there.
    outside = OUTSIDE.search(joined) if any(mark in framed for mark in SUSPECT) else None
    if outside:
        name = names[joined.count("\n", 0, outside.start())]
        raise FormatError(f"the member name {name!r} is no relative path", file=file)
    if len(set(names)) != len(names):
        raise FormatError(f"two members have one name: {_repeated(names, str)!r}", file=file)


def check_case(names: str, file: str) -> None:
    """Refuse names (one a line) that differ in nothing but case, or in how a letter is composed: PyTorch takes one for the
    other."""
    folded = _folded(names)
    # Names that fold to themselves are as distinct as they were.
    if folded != names and len(set(folded.split("\n"))) != names.count("\n") + 1:
        repeated = _repeated(names.split("\n"), _folded)
        raise FormatError(f"two members have one name, but for its case: {repeated!r}", file=file)


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
