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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from statedict.files import Frame, Part, Payload, crc32

from ._zip_end import END, END64, LOCATOR
from ._zip_places import ALIGNMENT, ONES, place

# From here on a payload is a part of its own; smaller ones are copied into blocks of at most this many bytes.
LARGE = 256 << 10
BLOCK = 2 << 20


class Record(NamedTuple):
    """A member to be written. `views` gives its bytes in order; `extra` is what its entry in the directory says besides."""

    name: str
    nbytes: int
    views: Callable[[], Iterable[memoryview]]
    extra: bytes = b""


class _Layout:
    """Where everything lies, computed once; and the bytes that are not payload, made when the CRCs are known."""

    def __init__(self, records: Sequence[Record], comment: bytes, alignment: int, checked: bool) -> None:
        self.records = records
        self.checked = checked
        self._comment = comment
        self.names = [record.name.encode() for record in records]
        self.crcs = [0] * len(records)
        places = place(
            [record.nbytes for record in records],
            [len(name) for name in self.names],
            [len(record.extra) for record in records],
            alignment,
        )
        self.starts, self.payloads, self.ends = (
            column.tolist() for column in (places.starts, places.payloads, places.ends)
        )
        self._paddings: list[int] = places.paddings.tolist()
        wide: list[int] = places.wide.nonzero()[0].tolist()
        self._local_wide = {index: places.wide_record(index, local=True) for index in wide}
        self._wide = {index: places.wide_record(index, local=False) for index in wide}
        self._headers = places.headers()
        self._places = places
        varying = [*self.names, *self._wide.values(), *(record.extra for record in records), comment]
        self.directory_size = 46 * len(records) + sum(map(len, varying)) + END_RECORDS

    def head(self, index: int) -> bytes:
        """All that stands between the member before and the payload."""
        fixed = self._headers[30 * index : 30 * index + 30]
        wide = self._local_wide.get(index, b"") if self._wide else b""
        return fixed + self.names[index] + wide + _padding(self._paddings[index])

    def tail(self, index: int) -> bytes:
        """The data descriptor."""
        nbytes = self.records[index].nbytes
        if not nbytes:
            return b""
        pack = WIDE_DESCRIPTOR.pack if index in self._wide else DESCRIPTOR.pack
        return pack(b"PK\7\x08", self.crcs[index], nbytes, nbytes)

    def directory(self) -> bytes:
        """The central directory and the end records."""
        fixed = self._places.entries(self.crcs)
        pieces: list[bytes] = []
        for index, name in enumerate(self.names):
            pieces += fixed[46 * index : 46 * index + 46], name
            if index in self._wide:
                pieces.append(self._wide[index])
            pieces.append(self.records[index].extra)
        directory = b"".join(pieces)
        return directory + _end_records(len(self.names), len(directory), self.ends[-1], self._comment)


class Seal(NamedTuple):
    """A last member of `nbytes` bytes, made from the CRC-32s of all others."""

    name: str
    nbytes: int
    make: Callable[[Sequence[int]], bytes]


def zip_parts(
    records: Sequence[Record],
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
    for index, record in enumerate(records):
        if record.nbytes >= LARGE:
            parts += _Block(layout, before, range(first, index), index), _Large(layout, index)
            before, first, space = index, index + 1, 0
        elif space + record.nbytes > BLOCK:
            parts.append(_Block(layout, before, range(first, index), None))
            before, first, space = None, index, record.nbytes
        else:
            space += record.nbytes
    parts.append(_Block(layout, before, range(first, len(records)), None))
    parts.append(Frame(layout.directory_size, layout.directory))
    return parts


class _Large(Payload):
    """A large member's payload, written from where it lies."""

    def __init__(self, layout: _Layout, index: int) -> None:
        super().__init__(layout.records[index].nbytes, layout.records[index].views)
        self._layout = layout
        self._index = index

    def chunks(self) -> Iterator[memoryview]:
        if not self._layout.checked:
            yield from self._layout.records[self._index].views()
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
            start = layout.payloads[before] + layout.records[before].nbytes
        stop = layout.starts[run.stop] if run.stop < len(layout.starts) else layout.ends[-1]
        self.nbytes = (stop if after is None else layout.payloads[after]) - start

    def chunks(self) -> Iterator[memoryview]:
        layout = self._layout
        records, crcs, head, tail = layout.records, layout.crcs, layout.head, layout.tail
        pieces: list[Any] = [] if self._before is None else [tail(self._before)]
        for index in self._run:
            pieces.append(head(index))
            crc = 0
            for view in records[index].views():
                crc = crc32(view, crc) if layout.checked else 0
                pieces.append(view)
            crcs[index] = crc
            pieces.append(tail(index))
        if self._after is not None:
            pieces.append(layout.head(self._after))
        yield memoryview(b"".join(pieces))


def _end_records(count: int, nbytes: int, offset: int, comment: bytes) -> bytes:
    wide = END64.pack(b"PK\6\6", END64.size - 12, 0x031E, 45, 0, 0, count, count, nbytes, offset)
    locator = LOCATOR.pack(b"PK\6\7", 0, offset + nbytes, 1)
    few = min(count, 0xFFFF)
    end = END.pack(b"PK\5\6", 0, 0, few, few, min(nbytes, ONES), min(offset, ONES), len(comment))
    return b"".join((wide, locator, end, comment))


DESCRIPTOR, WIDE_DESCRIPTOR = struct.Struct("<4sIII"), struct.Struct("<4sIQQ")
END_RECORDS = END64.size + LOCATOR.size + END.size


@lru_cache(maxsize=2 * ALIGNMENT)
def _padding(length: int) -> bytes:
    return b"FB" + length.to_bytes(2, "little") + b"Z" * length
