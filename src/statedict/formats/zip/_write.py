"""Write a zip in PyTorch's exact layout, as parts in order.

Theory of operation. Every member is stored without compression. Its local header does not contain size and CRC: a
descriptor after the payload does, so that only lengths must be known beforehand. The extra field of the header is
padding, so that payloads begin at multiples of 64 bytes and can be mapped. Beyond 4 GiB sizes and offsets move into
zip64 records, in the header too; the zip64 end record is always written. Dates, versions and attributes are zero: equal
content gives equal bytes.

Large payloads are separate parts, written straight from their memory. Runs of small members are joined into blocks,
because one system call per member would dominate the cost.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import NamedTuple

from statedict.files import Frame, Part, Payload, crc32s
from statedict.state import Table, copies_of, view_of

from ...errors import FormatError, SaveError
from .._limits import LIMITS
from ._directory import END, END64, LOCATOR, check_names
from ._layout import ALIGNMENT, ONES, descriptors, place

# From this size on a payload is a separate part; smaller ones are copied into blocks of at most this many bytes.
LARGE = 256 << 10
BLOCK = 2 << 20


class Record(NamedTuple):
    """A member to be written. `views` returns its bytes in order; `extra` is its extra field in the directory; `of` is the
    key of its bytes if they may be distributed over several processes (see `Payload`).
    """

    name: str
    nbytes: int
    views: Callable[[], Iterable[memoryview]]
    extra: bytes = b""
    of: Hashable = None


class TensorRun(NamedTuple):
    """Consecutive members, each the memory of a row of `table`."""

    names: Sequence[str]
    table: Table


class _Batch(NamedTuple):
    """A Record or a run of members, and the range of members that it makes."""

    members: range
    by: Record | TensorRun

    def views(self, index: int) -> Iterable[memoryview]:
        """Return the bytes of one member."""
        if isinstance(self.by, Record):
            return self.by.views()
        return (view_of(self.by.table, index - self.members.start),)

    def contents(self, wanted: range) -> Iterator[bytes]:
        """Yield the bytes of the members in `wanted`."""
        start, stop = (min(max(at, self.members.start), self.members.stop) for at in (wanted.start, wanted.stop))
        if isinstance(self.by, TensorRun):
            yield from copies_of(self.by.table, start - self.members.start, stop - self.members.start)
        elif start < stop:
            yield b"".join(self.by.views())


class _Layout:
    """The layout of the whole archive, computed once; and the bytes outside of payloads, made when the CRCs are known."""

    def __init__(self, records: Sequence[Record | TensorRun], comment: bytes, alignment: int, checked: bool) -> None:
        self.checked = checked
        self.given: list[_Batch] = []
        self.names: list[bytes] = []
        self.sizes: list[int] = []
        self.extras: dict[int, bytes] = {}
        self.of: dict[int, Hashable] = {}
        for record in records:
            self._add(record)
        self._comment = comment
        self._begins = [given.members.start for given in self.given]
        count = len(self.names)
        self.crcs = [0] * count
        extras = self._sparse(self.extras, range(count))
        places = place(self.sizes, list(map(len, self.names)), list(map(len, extras)), alignment)
        self.starts, self.payloads, self.ends = (
            column.tolist() for column in (places.starts, places.payloads, places.ends)
        )
        self._paddings = list(map(_padding, places.paddings.tolist()))
        wide: list[int] = places.wide.nonzero()[0].tolist()
        self._local_wide = {index: places.wide_record(index, local=True) for index in wide}
        self._wide = {index: places.wide_record(index, local=False) for index in wide}
        self._headers = places.headers()
        self._places = places
        varying = sum(map(len, [*self.names, *self._wide.values(), *self.extras.values(), comment]))
        self.directory_size = 46 * count + varying + END_RECORDS

    def heads(self, members: range) -> list[list[bytes]]:
        """Return the bytes between the previous member and the payload, for each member: columns of pieces."""
        cut = slice(members.start, members.stop)
        wide = [self._sparse(self._local_wide, members)] if self._local_wide else []
        return [self._headers[cut], self.names[cut], *wide, self._paddings[cut]]

    def tails(self, members: range) -> list[bytes]:
        """Return the data descriptor of each member, whose CRC is known by now."""
        sizes, crcs = self.sizes[members.start : members.stop], self.crcs[members.start : members.stop]
        found = descriptors(crcs, sizes) if max(sizes, default=0) < ONES else [b""] * len(members)
        for index in self._wide.keys() & set(members) if self._wide else ():
            row = index - members.start
            found[row] = WIDE_DESCRIPTOR.pack(b"PK\7\x08", crcs[row], sizes[row], sizes[row])
        return [tail if size else b"" for tail, size in zip(found, sizes)] if 0 in sizes else found

    def contents(self, members: range) -> list[bytes]:
        """Return a copy of the bytes of small members; their CRCs are known afterwards."""
        found: list[bytes] = []
        at = bisect_right(self._begins, members.start) - 1
        while len(found) < len(members):
            made = list(self.given[at].contents(members))
            if self.checked:
                # At once: the last member is made from the CRCs of those before it.
                first = members.start + len(found)
                self.crcs[first : first + len(made)] = crc32s(made)
            found += made
            at += 1
        return found

    def views(self, index: int) -> Iterable[memoryview]:
        """Return the bytes of one member, without copying."""
        return self.given[bisect_right(self._begins, index) - 1].views(index)

    def directory(self) -> bytes:
        """Return the central directory and the end records."""
        members = range(len(self.names))
        fixed = self._places.entries(self.crcs)
        columns = fixed, self.names, self._sparse(self._wide, members), self._sparse(self.extras, members)
        directory = b"".join(chain.from_iterable(zip(*columns)))
        return directory + _end_records(len(self.names), len(directory), self.ends[-1], self._comment)

    def _add(self, record: Record | TensorRun) -> None:
        first = len(self.names)
        if isinstance(record, TensorRun):
            self.names += map(str.encode, record.names)
            self.sizes += record.table.sizes
        else:
            self.names.append(record.name.encode())
            self.sizes.append(record.nbytes)
            if record.extra:
                self.extras[first] = record.extra
            if record.of is not None and record.nbytes:
                self.of[first] = record.of
        self.given.append(_Batch(range(first, len(self.names)), record))

    def _sparse(self, found: Mapping[int, bytes], members: range) -> list[bytes]:
        """Return a column that is empty for nearly all members."""
        return [found.get(index, b"") for index in members] if found else [b""] * len(members)


def check_members(records: Sequence[Record | TensorRun]) -> None:
    """Raise SaveError for members that the reader would refuse, or whose lengths exceed 16 bits."""
    count = sum(len(record.names) if isinstance(record, TensorRun) else 1 for record in records)
    if count > LIMITS.zip_members:
        raise SaveError(
            f"an archive of {count:,} members exceeds the limit of {LIMITS.zip_members:,}: save in shards "
            "(max_shard_size=), or as safetensors"
        )
    single = [record for record in records if isinstance(record, Record)]
    try:
        check_names([record.name for record in single], LIMITS, "")
    except FormatError as error:
        raise SaveError(f"invalid member name for an archive: {error.reason}") from error
    for record in single:
        if len(record.extra) > LONGEST_EXTRA:
            raise SaveError(
                f"{record.name!r}: its extra field of {len(record.extra):,} bytes is too long for the directory"
            )


class LastMember(NamedTuple):
    """A last member of `nbytes` bytes, made from the CRC-32s of all others."""

    name: str
    nbytes: int
    make: Callable[[Sequence[int]], bytes]


def zip_parts(
    records: Sequence[Record | TensorRun],
    last: LastMember | None = None,
    comment: bytes = b"",
    *,
    alignment: int = ALIGNMENT,
    checked: bool = True,
) -> list[Part]:
    """Return the parts of the archive with the records (at least one) and the last member, in order.

    Payloads begin at multiples of `alignment` bytes (below 64 KiB). Without `checked`, CRCs are not computed and are
    all 0.
    """
    if last is not None:
        records = [*records, Record(last.name, last.nbytes, lambda: [memoryview(last.make(layout.crcs[:-1]))])]
    layout = _Layout(records, comment, alignment, checked)
    parts: list[Part] = []
    before: int | None = None
    first = space = 0
    # The last member depends on the CRCs of all others, so it is not in their block.
    count = len(layout.sizes) - (last is not None)
    for index, nbytes in enumerate(layout.sizes[:count]):
        if nbytes >= LARGE or index in layout.of:
            parts += _Block(layout, before, range(first, index), index), _payload(layout, index)
            before, first, space = index, index + 1, 0
        elif space + nbytes > BLOCK:
            parts.append(_Block(layout, before, range(first, index), None))
            before, first, space = None, index, nbytes
        else:
            space += nbytes
    parts.append(_Block(layout, before, range(first, count), None))
    if last is not None:
        parts.append(_Block(layout, None, range(count, count + 1), None))
    parts.append(Frame(layout.directory_size, layout.directory))
    return parts


def _payload(layout: _Layout, index: int) -> Part:
    """Return the payload of one member, written from its memory."""
    views, nbytes = partial(layout.views, index), layout.sizes[index]
    if not layout.checked:
        return _Unchecked(nbytes, views)
    return Payload(nbytes, views, partial(layout.crcs.__setitem__, index), layout.of.get(index))


class _Unchecked(NamedTuple):
    """A payload whose CRC-32 is not computed."""

    nbytes: int
    views: Callable[[], Iterable[memoryview]]
    last: bool = False

    def chunks(self) -> Iterable[memoryview]:
        return self.views()


class _Block:
    """A run of small members; with the descriptor of the large member before it, and the header of the one after."""

    last = False

    def __init__(self, layout: _Layout, before: int | None, run: range, after: int | None) -> None:
        self._layout = layout
        self._before = before
        self._run = run
        self._after = after
        start = layout.starts[run.start] if run.start < len(layout.starts) else layout.ends[-1]
        if before is not None:
            start = layout.payloads[before] + layout.sizes[before]
        stop = layout.starts[run.stop] if run.stop < len(layout.starts) else layout.ends[-1]
        self.nbytes = (stop if after is None else layout.payloads[after]) - start

    def chunks(self) -> Iterator[memoryview]:
        layout, run = self._layout, self._run
        pieces = [] if self._before is None else layout.tails(range(self._before, self._before + 1))
        contents = layout.contents(run) if run else []
        pieces += chain.from_iterable(zip(*layout.heads(run), contents, layout.tails(run)))
        if self._after is not None:
            pieces += chain.from_iterable(layout.heads(range(self._after, self._after + 1)))
        yield memoryview(b"".join(pieces))


def _end_records(count: int, nbytes: int, offset: int, comment: bytes) -> bytes:
    wide = END64.pack(b"PK\6\6", END64.size - 12, 0x031E, 45, 0, 0, count, count, nbytes, offset)
    locator = LOCATOR.pack(b"PK\6\7", 0, offset + nbytes, 1)
    few = min(count, 0xFFFF)
    end = END.pack(b"PK\5\6", 0, 0, few, few, min(nbytes, ONES), min(offset, ONES), len(comment))
    return b"".join((wide, locator, end, comment))


# Lengths are 16-bit numbers; a zip64 record of at most 28 bytes may come first.
LONGEST_EXTRA = 0xFFFF - 28
WIDE_DESCRIPTOR = struct.Struct("<4sIQQ")
END_RECORDS = END64.size + LOCATOR.size + END.size


@lru_cache(maxsize=2 * ALIGNMENT)
def _padding(length: int) -> bytes:
    return b"FB" + length.to_bytes(2, "little") + b"Z" * length
