"""A zip archive, opened only if it is unambiguous: members by name, with everything checked except their CRC.

Readers must not be able to disagree: exactly one end record at the very end, a directory of exactly the stated size,
local headers equal to it, no duplicate names (also ignoring case), no overlaps, only stored or deflated members. A
deflated member is decompressed up to its declared size, and never used as raw bytes. In a remote file, a member's local
header is checked when the member is read, not when the archive is opened.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

from statedict.files import File, checksums, crc32, fetch

from ...errors import ChecksumError, FormatError, UnknownNameError
from .._limits import LIMITS, Limits
from ._directory import DEFLATED, STORED, Directory, check_names, find_directory, read_entries
from ._members import UNKNOWN, Bound, ManyMembers, Member, bounds, locate

# From this many members on, arrays are faster even if NumPy must be imported first.
MANY = 8192
# From this many members on, arrays are faster if NumPy is imported already.
FEW = 256


class Archive(NamedTuple):
    """An open zip archive.

    Attributes:
        file: the file that contains it.
        members: the members by name, in the order of the directory, without entries for folders.
        notes: unusual but harmless findings.
        checked: whether it has CRCs. PyTorch has an option not to compute them; then all are 0.
        comment: the archive's comment.
        extras: the extra fields in the directory, of members that have one.
        top: what the names of its members begin with that the paths of the files do not, if it was unpacked; else None.
        waiting: the bounds of members by name, if not all of them have been located yet.
    """

    file: File
    members: Mapping[str, Member]
    notes: list[str]
    checked: bool
    comment: bytes = b""
    extras: Mapping[str, bytes] = MappingProxyType({})
    waiting: Mapping[str, Bound] = MappingProxyType({})
    top: str | None = None


def open_zip(file: File, limits: Limits = LIMITS, *, trailing: bool = False) -> Archive:
    """Open the archive in `file`; raise FormatError if anything in it is wrong or ambiguous.

    `trailing`: allow other bytes after its end, as PyTorch does.
    """
    directory = find_directory(file, trailing=trailing)
    if directory.entries > limits.zip_members:
        raise limits.exceeded("zip_members", f"an archive of {directory.entries:,} members").located(file=file.name)
    members, hidden, extras, waiting = _members(file, directory)
    kept: Mapping[str, Member]
    if isinstance(members, ManyMembers):
        check_names(members.names, limits, file.name)
        kept, checked = members, bool(members.crcs.any()) or not members.sizes.any()
    else:
        check_names([member.name for member in members], limits, file.name)
        _check_inflation(file, members, limits)
        kept = {member.name: member for member in members if not (member.name.endswith("/") and not member.nbytes)}
        checked = any(member.crc for member in members) or not any(member.nbytes for member in members)
    notes = [f"{hidden:,} bytes between the members do not belong to any of them"] if hidden else []
    if not checked:
        notes.append("the file was saved without checksums: damage to its content cannot be detected")
    return Archive(file, kept, notes, checked, directory.comment, extras, waiting)


def located(archive: Archive, members: Iterable[Member]) -> list[Member]:
    """Return the members with their offsets; local headers not yet read are read in one batch.

    Raises FormatError if one of them contradicts the directory.
    """
    members = list(members)
    names = [member.name for member in members if member.offset == UNKNOWN]
    waiting = [archive.waiting[name] for name in names if archive.members[name].offset == UNKNOWN]
    if waiting:
        cast("dict[str, Member]", archive.members).update(locate(archive.file, waiting)[0])
    return [archive.members[member.name] for member in members] if names else members


def read_member(archive: Archive, name: str) -> bytes:
    """Return all bytes of a member, its CRC checked; raise UnknownNameError if it does not exist."""
    member = archive.members.get(name)
    if member is None:
        raise UnknownNameError(name, among=f"the archive {archive.file.name}")
    data = member_bytes(archive, member)
    if archive.checked and crc32(data) != member.crc:
        raise damaged(archive, member, crc32(data))
    return data


def read_parsed(archive: Archive, name: str, limits: Limits) -> bytes:
    """Return a member that will be parsed, which costs many times its bytes; raise LimitError if it is too large for
    the file.
    """
    member = archive.members.get(name)
    if member is not None and not is_affordable(archive, member, limits):
        raise limits.exceeded(
            "parsed_bytes", f"decompressing {member.packed:,} bytes of data to be parsed to {member.nbytes:,}"
        ).located(file=archive.file.name, member=name)
    return read_member(archive, name)


def is_affordable(archive: Archive, member: Member, limits: Limits) -> bool:
    """Return whether a member that will be parsed is within the limits for a file of this size."""
    most = max(limits.parsed_bytes, limits.inflated_ratio * archive.file.size)
    return member.method == STORED or member.nbytes <= most


def member_bytes(archive: Archive, member: Member, stop: int | None = None) -> bytes:
    """Return the first `stop` bytes of a member (None: all), decompressed if necessary; its CRC is not checked."""
    (member,) = located(archive, [member])
    if member.method == STORED:
        return archive.file.read(member.offset, member.nbytes if stop is None else min(stop, member.nbytes))
    if stop is not None and stop < member.nbytes:
        start = _beginning(archive, member, stop)
        if len(start) == stop:
            return start
    return _inflate(archive, member, archive.file.read(member.offset, member.packed))[:stop]


def first_bytes(archive: Archive, members: Iterable[Member], nbytes: int) -> list[bytes]:
    """Return the first bytes of each member (fewer if it is shorter); those of all stored members are read in one
    batch.
    """
    members = located(archive, members)
    stored = [member for member in members if member.method == STORED]
    fetched = fetch(archive.file, [(member.offset, min(nbytes, member.nbytes)) for member in stored])
    found = {member.name: bytes(start) for member, start in zip(stored, fetched)}
    return [found[member.name] if member.name in found else member_bytes(archive, member, nbytes) for member in members]


def verify_members(archive: Archive) -> list[tuple[Member, int]]:
    """Return the members whose bytes do not match their CRC, each with the actual CRC."""
    if not archive.checked:
        return []
    if isinstance(archive.members, ManyMembers):
        many = archive.members
        crcs = checksums(archive.file, list(zip(many.offsets.tolist(), many.sizes.tolist())))
        return [(many[name], crc) for name, crc, wanted in zip(many.names, crcs, many.crcs.tolist()) if crc != wanted]
    members = located(archive, archive.members.values())
    stored = [member for member in members if member.method == STORED]
    found = checksums(archive.file, [(member.offset, member.nbytes) for member in stored])
    wrong = [(member, crc) for member, crc in zip(stored, found) if crc != member.crc]
    for member in members:
        if member.method == DEFLATED:
            crc = crc32(member_bytes(archive, member))
            if crc != member.crc:
                wrong.append((member, crc))
    return wrong


def damaged(archive: Archive, member: Member, crc: int) -> ChecksumError:
    """Return the error for a member whose bytes do not match its CRC."""
    return ChecksumError(
        f"CRC-32 is {crc:08x} and should be {member.crc:08x}: the {member.nbytes:,} bytes have changed since they "
        "were written",
        file=archive.file.name,
        member=member.name,
        hint="download or save the file again",
    )


def path_of(archive: Archive, name: str) -> str:
    """Return the path of a member, for messages."""
    return f"{archive.file.name}/{name.removeprefix(archive.top or '')}"


def _members(
    file: File, directory: Directory
) -> tuple[Sequence[Member] | ManyMembers, int, dict[str, bytes], dict[str, Bound]]:
    """Return the members, the number of unused bytes between them, their extra fields, and the bounds of those not yet
    located.
    """
    raw = file.read(directory.offset, directory.nbytes)
    if directory.entries >= (FEW if "numpy" in sys.modules else MANY) and not file.far:
        from ._directory_columns import locate_many

        found = locate_many(file, raw, directory.entries, directory.offset)
        if found is not None:
            return *found, {}, {}
    entries = read_entries(raw, directory.entries, file.name)
    extras = {entry.name: entry.extra for entry in entries if entry.extra}
    bounded = bounds(file, entries, directory.offset)
    if file.far:
        waiting = {bound.entry.name: bound for bound in bounded}
        return [waiting[entry.name].unlocated for entry in entries], 0, extras, waiting
    members, hidden = locate(file, bounded)
    return [members[entry.name] for entry in entries], hidden, extras, {}


def _check_inflation(file: File, members: Sequence[Member], limits: Limits) -> None:
    total = 0
    for member in members:
        if member.method == DEFLATED:
            total += member.nbytes
            if member.nbytes > limits.member_ratio * max(member.packed, 1):
                raise limits.exceeded(
                    "member_ratio", f"decompressing {member.packed:,} bytes to {member.nbytes:,}"
                ).located(file=file.name, member=member.name)
    if total > max(limits.inflated_bytes, limits.inflated_ratio * file.size):
        raise limits.exceeded("inflated_bytes", f"decompressing the file to {total:,} bytes").located(file=file.name)


def _beginning(archive: Archive, member: Member, stop: int) -> bytes:
    """Return the first `stop` bytes of a deflated member, or fewer if these take more of the file than usual."""
    # A byte takes at most 15 bits, and the code tables before them some hundred bytes.
    start = archive.file.read(member.offset, min(member.packed, 2 * stop + 1024))
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(start, stop)
    except zlib.error:
        return b""


def _inflate(archive: Archive, member: Member, stored: bytes) -> bytes:
    problem = f"its compressed data does not decompress to {member.nbytes:,} bytes"
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(stored, member.nbytes + 1)
    except zlib.error as error:
        raise FormatError(f"{problem}: {error}", file=archive.file.name, member=member.name) from error
    if len(data) != member.nbytes or not inflater.eof or inflater.unused_data:
        raise FormatError(problem, file=archive.file.name, member=member.name)
    return data
