"""A zip in PyTorch's exact layout, as parts to be written in order.

Theory of operation. Every member is stored. Its local header tells no size and no CRC: a descriptor after the payload
does, so that nothing needs to be known beforehand but lengths. The extra field of the header is padding, so that payloads
begin at multiples of 64 bytes, and can be mapped. Past 4 GiB sizes and offsets move into zip64 records, in the header too;
the zip64 end record is always there. Dates, versions and attributes are zero: equal content gives equal bytes.

Large payloads are parts of their own, written straight from the memory where they lie. Runs of small members are put
together into blocks, since 32,000 system calls would cost more than the bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import NamedTuple

from statedict.files import Frame, Part, Payload, crc32
from statedict.state import Wholes

from ...errors import FormatError, SaveError
from .._limits import LIMITS
from ._directory import check_names
from ._end import END, END64, LOCATOR
from ._layout import ALIGNMENT, ONES, descriptors, place

# From here on a payload is a part of its own; smaller ones are copied into blocks of at most this many bytes.
LARGE = 256 << 10
BLOCK = 2 << 20


class Record(NamedTuple):
    """A member to be written. `views` gives its bytes in order; `extra` is what its entry in the directory says besides."""

    name: str
    nbytes: int
    views: Callable[[], Iterable[memoryview]]
    extra: bytes = b""


class Run(NamedTuple):
    """Members one after the other, each the memory of one of the tensors in `wholes`."""

    names: Sequence[str]
    wholes: Wholes


class _Given(NamedTuple):
    """A Record or Run, and which of the members are its."""

    members: range
    by: Record | Run

    def views(self, index: int) -> Iterable[memoryview]:
        """The bytes of one member."""
        if isinstance(self.by, Record):
            return self.by.views()
        return (self.by.wholes.view(index - self.members.start),)

    def contents(self, wanted: range) -> Iterator[bytes]:
        """The bytes of those of the members that are wanted."""
        start, stop = (min(max(at, self.members.start), self.members.stop) for at in (wanted.start, wanted.stop))
        if isinstance(self.by, Run):
            yield from self.by.wholes.copies(start - self.members.start, stop - self.members.start)
        elif start < stop:
            yield b"".join(self.by.views())


class _Layout:
    """Where everything lies, computed once; and the bytes that are not payload, made when the CRCs are known."""

    def __init__(self, records: Sequence[Record | Run], comment: bytes, alignment: int, checked: bool) -> None:
        self.checked = checked
        self.given: list[_Given] = []
        self.names: list[bytes] = []
        self.sizes: list[int] = []
        self.extras: dict[int, bytes] = {}
        for record in records:
            self._add(record)
        self._comment = comment
        self._begins = [given.members.start for given in self.given]
        count = len(self.names)
        self.crcs = [0] * count
        places = place(self.sizes, list(map(len, self.names)), self._lengths_of_extras(), alignment)
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
        """What stands between the member before and the payload, for each member: columns of pieces."""
        cut = slice(members.start, members.stop)
        wide = [self._sparse(self._local_wide, members)] if self._local_wide else []
        return [self._headers[cut], self.names[cut], *wide, self._paddings[cut]]

    def tails(self, members: range) -> list[bytes]:
        """The data descriptor of each member, whose CRC is known by now."""
        sizes, crcs = self.sizes[members.start : members.stop], self.crcs[members.start : members.stop]
        found = descriptors(crcs, sizes) if max(sizes, default=0) < ONES else [b""] * len(members)
        for index in self._wide.keys() & set(members) if self._wide else ():
            row = index - members.start
            found[row] = WIDE_DESCRIPTOR.pack(b"PK\7\x08", crcs[row], sizes[row], sizes[row])
        return [tail if size else b"" for tail, size in zip(found, sizes)] if 0 in sizes else found

    def contents(self, members: range) -> list[bytes]:
        """The bytes of small members, a copy of each; their CRCs are known afterwards, to the seal too."""
        found: list[bytes] = []
        at = bisect_right(self._begins, members.start) - 1
        while len(found) < len(members):
            made = list(self.given[at].contents(members))
            if self.checked:
                first = members.start + len(found)
                self.crcs[first : first + len(made)] = map(crc32, made)
            found += made
            at += 1
        return found

    def views(self, index: int) -> Iterable[memoryview]:
        """The bytes of one member, where they lie."""
        return self.given[bisect_right(self._begins, index) - 1].views(index)

    def directory(self) -> bytes:
        """The central directory and the end records."""
        members = range(len(self.names))
        fixed = self._places.entries(self.crcs)
        columns = fixed, self.names, self._sparse(self._wide, members), self._sparse(self.extras, members)
        directory = b"".join(chain.from_iterable(zip(*columns)))
        return directory + _end_records(len(self.names), len(directory), self.ends[-1], self._comment)

    def _add(self, record: Record | Run) -> None:
        first = len(self.names)
        if isinstance(record, Run):
            self.names += map(str.encode, record.names)
            self.sizes += record.wholes.sizes
        else:
            self.names.append(record.name.encode())
            self.sizes.append(record.nbytes)
            if record.extra:
                self.extras[first] = record.extra
        self.given.append(_Given(range(first, len(self.names)), record))

    def _lengths_of_extras(self) -> list[int]:
        return list(map(len, self._sparse(self.extras, range(len(self.names)))))

    def _sparse(self, found: Mapping[int, bytes], members: range) -> list[bytes]:
        """A column of what is nothing for nearly all members."""
        return [found.get(index, b"") for index in members] if found else [b""] * len(members)


def check_members(records: Sequence[Record | Run]) -> None:
    """Raise SaveError for members that the reader would refuse, or that 16-bit lengths cannot tell of."""
    count = sum(len(record.names) if isinstance(record, Run) else 1 for record in records)
    if count > LIMITS.zip_members:
        raise SaveError(
            f"an archive of {count:,} members is beyond the limit of {LIMITS.zip_members:,}: save in shards "
            "(max_shard_size=), or as safetensors"
        )
    alone = [record for record in records if isinstance(record, Record)]
    try:
        check_names([record.name for record in alone], LIMITS, "")
    except FormatError as error:
        raise SaveError(f"this cannot be a member of an archive: {error.reason}") from error
    for record in alone:
        if len(record.extra) > LONGEST_EXTRA:
            raise SaveError(f"{record.name!r}: what the directory should say of it takes {len(record.extra):,} bytes")


class Seal(NamedTuple):
    """A last member of `nbytes` bytes, made from the CRC-32s of all others."""

    name: str
    nbytes: int
    make: Callable[[Sequence[int]], bytes]


def zip_parts(
    records: Sequence[Record | Run],
    seal: Seal | None = None,
    comment: bytes = b"",
    *,
    alignment: int = ALIGNMENT,
    checked: bool = True,
) -> list[Part]:
    """The parts of the archive that holds the records (at least one) and the seal, in order.

    Payloads begin at multiples of `alignment` bytes (below 64 KiB). Without `checked` no CRC is computed, and all are 0.
    """
    if seal is not None:
        records = [*records, Record(seal.name, seal.nbytes, lambda: [memoryview(seal.make(layout.crcs[:-1]))])]
    layout = _Layout(records, comment, alignment, checked)
    parts: list[Part] = []
    before: int | None = None
    first = space = 0
    for index, nbytes in enumerate(layout.sizes):
        if nbytes >= LARGE:
            parts += _Block(layout, before, range(first, index), index), _Large(layout, index)
            before, first, space = index, index + 1, 0
        elif space + nbytes > BLOCK:
            parts.append(_Block(layout, before, range(first, index), None))
            before, first, space = None, index, nbytes
        else:
            space += nbytes
    parts.append(_Block(layout, before, range(first, len(layout.sizes)), None))
    parts.append(Frame(layout.directory_size, layout.directory))
    return parts


class _Large(Payload):
    """A large member's payload, written from where it lies."""

    def __init__(self, layout: _Layout, index: int) -> None:
        super().__init__(layout.sizes[index], partial(layout.views, index))
        self._layout = layout
        self._index = index

    def chunks(self) -> Iterator[memoryview]:
        if not self._layout.checked:
            yield from self._layout.views(self._index)
            return
        yield from super().chunks()
        self._layout.crcs[self._index] = self.crc


class _Block:
    """A run of small members, whole; the descriptor of the large member before it, the header of the one after."""

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


# Lengths are 16-bit numbers; a zip64 record of at most 28 bytes may come before.
LONGEST_EXTRA = 0xFFFF - 28
WIDE_DESCRIPTOR = struct.Struct("<4sIQQ")
END_RECORDS = END64.size + LOCATOR.size + END.size


@lru_cache(maxsize=2 * ALIGNMENT)
def _padding(length: int) -> bytes:
    return b"FB" + length.to_bytes(2, "little") + b"Z" * length
