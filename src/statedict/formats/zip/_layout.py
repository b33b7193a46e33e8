"""Compute the positions and headers of the members of a zip to be written: as arrays, all members at once.

Packing one header at a time would take most of the time of saving many small tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

ALIGNMENT = 64
ONES = 0xFFFFFFFF
# Names are UTF-8 (bit 11); sizes and CRC follow in a descriptor (bit 3), except for empty members.
EMPTY, FILLED = 0x0800, 0x0808


class Places(NamedTuple):
    """One row for each member, in order; all in bytes.

    Attributes:
        starts, payloads, ends: the offsets of its header, of its data, and of the end of its descriptor.
        sizes, names: the lengths of its data and of its name.
        paddings: the length of the padding in its header that aligns its data.
        wide_size, wide_start: whether its size or offset needs a zip64 record.
        extras: the length of the extra field of its entry in the directory.
    """

    starts: Numbers
    payloads: Numbers
    ends: Numbers
    sizes: Numbers
    names: Numbers
    paddings: Numbers
    wide_size: Flags
    wide_start: Flags
    extras: Numbers

    @property
    def wide(self) -> Flags:
        return self.wide_size | self.wide_start

    def wide_record(self, index: int, *, local: bool) -> bytes:
        """Return the zip64 record of a member that needs one, for its header (`local`) or for the directory."""
        size = int(self.sizes[index])
        # As PyTorch does: a header is written before the data, when the stored size is unknown.
        numbers = [size, 0 if local else size] if self.wide_size[index] else []
        numbers += [int(self.starts[index])] if self.wide_start[index] else []
        return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)

    def headers(self) -> list[bytes]:
        """Return the fixed 30 bytes of each local header."""
        table = np.zeros(len(self.sizes), LOCAL)
        table["signature"] = int.from_bytes(b"PK\3\4", "little")
        table["flags"] = np.where(self.sizes == 0, EMPTY, FILLED)
        table["name"] = self.names
        table["extra"] = wide_lengths(self.wide_size, self.wide_start) + 4 + self.paddings
        return _rows(table)

    def entries(self, crcs: Sequence[int]) -> list[bytes]:
        """Return the fixed 46 bytes of each entry of the directory."""
        table = np.zeros(len(self.sizes), CENTRAL)
        table["signature"] = int.from_bytes(b"PK\1\2", "little")
        table["flags"] = np.where(self.sizes == 0, EMPTY, FILLED)
        table["crc"] = crcs
        table["packed"] = table["nbytes"] = np.where(self.wide_size, ONES, self.sizes)
        table["name"] = self.names
        table["extra"] = wide_lengths(self.wide_size, self.wide_start) + self.extras
        table["start"] = np.where(self.wide_start, ONES, self.starts)
        return _rows(table)


def place(sizes: Sequence[int], names: Sequence[int], extras: Sequence[int], alignment: int = ALIGNMENT) -> Places:
    """Return the positions of members with these lengths of data, names and extra fields in the directory.

    Data begins at multiples of `alignment`.
    """
    wide_start = np.zeros(len(sizes), bool)
    while True:
        # Whether an offset needs zip64 depends on the offsets before it; they only grow, so a few rounds suffice.
        places = _placed(_numbers(sizes), _numbers(names), _numbers(extras), wide_start, alignment)
        if ((places.starts >= ONES) == wide_start).all():
            return places
        wide_start = places.starts >= ONES


def descriptors(crcs: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
    """Return the data descriptor of each member, if no size needs zip64."""
    table = np.zeros(len(sizes), DESCRIPTOR)
    table["signature"] = int.from_bytes(b"PK\7\x08", "little")
    table["crc"] = crcs
    table["packed"] = table["nbytes"] = sizes
    return _rows(table)


def _rows(table: np.ndarray[Any, Any]) -> list[bytes]:
    rows: list[bytes] = table.view(f"V{table.dtype.itemsize}").tolist()
    return rows


def _numbers(lengths: Sequence[int]) -> Numbers:
    return np.array(lengths, np.int64)


def _placed(sizes: Numbers, names: Numbers, extras: Numbers, wide_start: Flags, alignment: int) -> Places:
    wide_size = sizes >= ONES
    heads = 30 + names + wide_lengths(wide_size, wide_start) + 4
    filled = sizes + np.where(sizes == 0, 0, np.where(wide_size | wide_start, 24, 16))
    # Payloads are aligned, so the distance between two is the length of what is between them, rounded up.
    before = np.concatenate([np.zeros(1, np.int64), filled[:-1]])
    payloads = np.cumsum(-(-(before + heads) // alignment) * alignment)
    ends = payloads + filled
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    return Places(starts, payloads, ends, sizes, names, payloads - starts - heads, wide_size, wide_start, extras)


def wide_lengths(wide_size: Flags, wide_start: Flags) -> Numbers:
    """Return the length of each member's zip64 record."""
    lengths: Numbers = 4 * (wide_size | wide_start) + 16 * wide_size + 8 * wide_start
    return lengths


LOCAL = np.dtype(
    [
        ("signature", "<u4"),
        ("version", "<u2"),
        ("flags", "<u2"),
        ("method_and_time", "<u2", 3),
        ("crc_and_sizes", "<u4", 3),
        ("name", "<u2"),
        ("extra", "<u2"),
    ]
)
DESCRIPTOR = np.dtype([("signature", "<u4"), ("crc", "<u4"), ("packed", "<u4"), ("nbytes", "<u4")])
CENTRAL = np.dtype(
    [
        ("signature", "<u4"),
        ("versions", "<u2", 2),
        ("flags", "<u2"),
        ("method_and_time", "<u2", 3),
        ("crc", "<u4"),
        ("packed", "<u4"),
        ("nbytes", "<u4"),
        ("name", "<u2"),
        ("extra", "<u2"),
        ("comment_disk_attributes", "<u2", 5),
        ("start", "<u4"),
    ]
)
