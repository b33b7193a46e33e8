"""The members of a zip, located: their local headers and data descriptors are checked against the directory.

A reader that trusts the local headers and one that trusts the directory must see the same archive, so both must agree.
Members are consecutive from byte 0 to the directory and do not overlap. In a remote file, only the headers of members
that are read are checked, so the functions work for some members as well as for all. Thousands of members are kept
column-wise (ManyMembers): a Member for each of 32,000 takes as long as reading the directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, ValuesView
from itertools import repeat
from typing import TYPE_CHECKING, Any

from ._directory import STORED

if TYPE_CHECKING:
    import numpy as np

    Numbers = np.ndarray[Any, np.dtype[np.int64]]


import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from statedict.files import File, fetch

from ...errors import FormatError
from ._directory import DESCRIPTOR, ONES, DirectoryEntry, wide_fields

LOCAL = struct.Struct("<4s2xHHxxxxIIIHH")
SIGNATURE = b"PK\7\x08"
# A descriptor is a CRC and two sizes of 4 or 8 bytes, after a signature that some writers omit.
LONGEST_DESCRIPTOR = 24
# PyTorch pads the extra field so that data begins at a multiple of 64.
USUAL_EXTRA = 128
# The offset of a member whose local header has not been read.
UNKNOWN = -1


class Member(NamedTuple):
    """A checked member: `packed` bytes at `offset` in the file are, or decompress to, its `nbytes` bytes, whose CRC-32
    should be `crc`. While `offset` is UNKNOWN, only the directory has been checked.
    """

    name: str
    offset: int
    packed: int
    nbytes: int
    method: int
    crc: int


class _Local(NamedTuple):
    """The numbers of a local header. `names` and `extras` are the lengths of what follows it."""

    signature: bytes
    flags: int
    method: int
    crc: int
    packed: int
    nbytes: int
    names: int
    extras: int


class Bound(NamedTuple):
    """An entry, and the offset of the next member or of the directory."""

    entry: DirectoryEntry
    limit: int

    @property
    def unlocated(self) -> Member:
        """Return the member according to the directory, without an offset."""
        entry = self.entry
        return Member(entry.name, UNKNOWN, entry.packed, entry.nbytes, entry.method, entry.crc)


def bounds(file: File, entries: Sequence[DirectoryEntry], end: int) -> list[Bound]:
    """Return the entries with their bounds, in file order; `end` is where members end.

    Raises FormatError if members overlap according to the directory.
    """
    ordered = sorted(entries, key=lambda entry: entry.header)
    limits = [entry.header for entry in ordered[1:]] + [end]
    check_start(file.name, ordered[0].header if ordered else end)
    check_extents(file.name, ((e.name, e.header, LOCAL.size + len(e.name) + e.packed) for e in ordered), limits)
    return list(map(Bound, ordered, limits))


def locate(file: File, bounded: Sequence[Bound]) -> tuple[dict[str, Member], int]:
    """Return the members by name, and the number of unused bytes after them.

    Raises FormatError if a header or descriptor contradicts its entry, or if members overlap.
    """
    entries, limits = [bound.entry for bound in bounded], [bound.limit for bound in bounded]
    starts = [entry.header + LOCAL.size for entry in entries]
    # Not beyond the next header: overlapping extents cannot be read in one batch.
    heads = fetch(file, [(e.header, min(LOCAL.size + len(e.name) + USUAL_EXTRA, end - e.header)) for e, end in bounded])
    locals_ = [_Local(*LOCAL.unpack_from(head)) for head in heads]
    tails = _tails(file, starts, locals_, heads)
    for entry, header, tail in zip(entries, locals_, tails):
        check_local(file.name, entry, header, bytes(tail))
    payloads = [start + h.names + h.extras for start, h in zip(starts, locals_)]
    ends = [payload + entry.packed for payload, entry in zip(payloads, entries)]
    check_extents(file.name, ((e.name, start, stop - start) for e, start, stop in zip(entries, payloads, ends)), limits)
    after = fetch(file, [(at, min(limit - at, LONGEST_DESCRIPTOR)) for at, limit in zip(ends, limits)])
    hidden = 0
    for entry, at, limit, descriptor in zip(entries, ends, limits, after):
        hidden += limit - at - descriptor_length(file.name, entry, bytes(descriptor))
    return {b.entry.name: b.unlocated._replace(offset=payload) for b, payload in zip(bounded, payloads)}, hidden


def _tails(
    file: File, starts: Sequence[int], headers: Sequence[_Local], heads: Sequence[memoryview]
) -> Sequence[memoryview]:
    """Return name and extra field of each header; `heads` are their first bytes, usually all."""
    lengths = [min(h.names + h.extras, file.size - start) for start, h in zip(starts, headers)]
    long = [i for i, length in enumerate(lengths) if LOCAL.size + length > len(heads[i])]
    fetched = dict(zip(long, fetch(file, [(starts[i], lengths[i]) for i in long])))
    return [fetched.get(i, heads[i][LOCAL.size : LOCAL.size + length]) for i, length in enumerate(lengths)]


def check_start(file: str, first: int) -> None:
    """Raise FormatError for bytes before the archive's first member: another reader may use them as another file."""
    if first:
        raise FormatError(f"{first:,} bytes precede the first member of the archive", file=file, offset=0)


def check_extents(file: str, extents: Iterable[tuple[str, int, int]], limits: Sequence[int]) -> None:
    """Raise FormatError for members (name, offset, length) that extend beyond their limit, where the next one begins."""
    for (name, start, nbytes), limit in zip(extents, limits):
        if start + nbytes > limit:
            raise FormatError(
                f"it should take bytes {start:,} to {start + nbytes:,} of the file, "
                f"but something else begins at byte {limit:,}",
                file=file,
                member=name,
            )


def check_local(file: str, entry: DirectoryEntry, header: _Local, tail: bytes) -> None:
    """Raise FormatError if a local header (and `tail`: its name and extra field) contradicts the directory's entry."""
    if header.signature != b"PK\3\4":
        raise FormatError(f"expected a local header at byte {entry.header:,}", file=file, member=entry.name)
    if tail[: header.names] != entry.name.encode() or len(tail) != header.names + header.extras:
        found = tail[: header.names]
        raise FormatError(f"its local header has another name: {found[:100]!r}", file=file, member=entry.name)
    if (header.flags, header.method) != (entry.flags, entry.method):
        raise FormatError(
            "its local header and the directory disagree on flags or compression method", file=file, member=entry.name
        )
    wide = wide_fields(tail[header.names :], entry.name, file) or ()
    crc, nbytes, packed = header.crc, header.nbytes, header.packed
    if ONES in (nbytes, packed):
        if len(wide) < 2:
            raise FormatError("the zip64 sizes of its local header are missing", file=file, member=entry.name)
        nbytes, packed = wide[:2]
    later = (0,) if entry.flags & DESCRIPTOR else ()
    # A header written before its data may contain zeros: the descriptor after the data then has the values.
    if crc not in (entry.crc, *later) or packed not in (entry.packed, *later) or nbytes not in (entry.nbytes, *later):
        raise FormatError(
            "its local header and the directory disagree on its size or CRC", file=file, member=entry.name
        )
    # PyTorch repeats sizes and its offset there, although the header's own fields are zero.
    if not set(wide) <= {0, entry.packed, entry.nbytes, entry.header}:
        raise FormatError("the zip64 record of its local header is invalid", file=file, member=entry.name)


def descriptor_length(file: str, entry: DirectoryEntry, found: bytes) -> int:
    """Return the length of the data descriptor at the start of `found`; raise FormatError if it contradicts the entry."""
    if not entry.flags & DESCRIPTOR:
        return 0
    for sizes in ("QQ", "II") if entry.wide else ("II", "QQ"):
        if sizes == "II" and max(entry.packed, entry.nbytes) > ONES:
            continue
        expected = struct.pack("<I" + sizes, entry.crc, entry.packed, entry.nbytes)
        for descriptor in (SIGNATURE + expected, expected):
            if found.startswith(descriptor):
                return len(descriptor)
    raise FormatError("its data descriptor disagrees with the directory", file=file, member=entry.name)


class ManyMembers(Mapping[str, Member]):
    """Stored, located members, column-wise: a mapping from name to Member, which is created at each lookup.

    Attributes:
        names: the names in the order of the directory.
        text: the same as text, one a line.
        numbers: the row of each name.
        offsets, sizes, crcs: the columns.
    """

    def __init__(self, names: list[str], offsets: Numbers, sizes: Numbers, crcs: Numbers) -> None:
        self.names = names
        self.text = "\n".join(names)
        self.numbers = dict(zip(names, range(len(names))))
        self.offsets = offsets
        self.sizes = sizes
        self.crcs = crcs
        self._runs: dict[str, tuple[int, int]] = {}

    def __getitem__(self, name: str) -> Member:
        row = self.numbers[name]
        offset, nbytes, crc = (int(column[row]) for column in (self.offsets, self.sizes, self.crcs))
        return Member(name, offset, nbytes, nbytes, STORED, crc)

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, name: object) -> bool:
        return name in self.numbers

    def rows_of(self, prefix: str, numbers: Numbers) -> Numbers:
        """Return the rows of the members with these names: the prefix and a number; -1 for missing members."""
        import numpy as np

        first, count = self._run(prefix)
        if count and numbers.max() < count:
            return first + numbers
        return np.array([self.numbers.get(f"{prefix}{number}", -1) for number in numbers.tolist()])

    def _run(self, prefix: str) -> tuple[int, int]:
        """Return the row of the member `prefix` + "0" and the number of members with the prefix, if they are consecutive
        and in the order of their numbers, as PyTorch writes them; otherwise (0, 0)."""
        if prefix not in self._runs:
            count = f"\n{self.text}".count(f"\n{prefix}")
            expected = f"\n{prefix}".join(map(str, range(count)))
            whole = f"\n{prefix}{expected}\n" in f"\n{self.text}\n"
            self._runs[prefix] = (self.numbers[f"{prefix}0"], count) if count and whole else (0, 0)
        return self._runs[prefix]

    def values(self) -> ValuesView[Member]:
        sizes = self.sizes.tolist()
        columns = zip(self.names, self.offsets.tolist(), sizes, sizes, repeat(STORED), self.crcs.tolist())
        return dict(zip(self.names, map(Member._make, columns))).values()


def text_of(members: Mapping[str, Member]) -> str:
    """Return the names of the members, one a line."""
    return members.text if isinstance(members, ManyMembers) else "\n".join(members)


def crcs_of(members: Mapping[str, Member]) -> list[int]:
    """Return the CRC-32s of the members, in order."""
    return members.crcs.tolist() if isinstance(members, ManyMembers) else [member.crc for member in members.values()]
