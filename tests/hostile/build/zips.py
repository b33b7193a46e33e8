"""Zip archives in which every field of every header can be what one likes.

`archive` lays the members out one after the other and writes what is true; a Member's or the archive's arguments then
say what is to be false.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FOUR = struct.pack("<4f", 1, 2, 3, 4)
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
STORED, DEFLATED = 0, 8


@dataclass(frozen=True)
class Member:
    """One member: what it holds, and the lies of its headers.

    `raw` are the bytes in the file where they are not those that `data` and `method` give. `both`, `local` and
    `central` replace header fields: flags, method, crc, csize, usize, name, extra, offset, attributes, and xlen (an extra
    field's length). `descriptor` writes sizes and checksum after the data, as torch does. `at` puts the central entry on
    another member's local header and writes none for this one.
    """

    name: bytes
    data: bytes
    method: int = STORED
    raw: bytes | None = None
    descriptor: bool = False
    both: Mapping[str, Any] = field(default_factory=dict)
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)
    at: bytes | None = None
    gap: bytes = b""

    @property
    def stored(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return deflated(self.data) if self.method == DEFLATED else self.data


def deflated(data: bytes) -> bytes:
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    return press.compress(data) + press.flush()


def archive(
    *members: Member,
    align: int = 0,
    zip64: bool = False,
    before: bytes = b"",
    adjust: bool = True,
    after: bytes = b"",
    **end: int,
) -> bytes:
    """The bytes of a zip of `members`.

    `align` pads so that data starts at multiples of it; `before` is put ahead of the first member (`adjust`: and counted
    in the offsets); `end` replaces fields of the end record: disk, count, size, offset.
    """
    body, places = bytearray(before if adjust else b""), dict[bytes, int]()
    central = bytearray()
    for member in members:
        body += member.gap
        place = places.get(member.at, len(body)) if member.at else len(body)
        if member.at is None:
            places[member.name] = place
            body += _local(member, len(body), align) + member.stored + _descriptor(member)
        central += _central(member, place)
    true = {"disk": 0, "count": len(members), "size": len(central), "offset": len(body)}
    tail = _zip64_end(true, len(body) + len(central)) if zip64 else b""
    whole = bytes(body + central) + tail + _end({**true, **end}) + after
    return whole if adjust else before + whole


def _fields(member: Member, lies: Mapping[str, Any]) -> dict[str, Any]:
    true = {
        "name": member.name,
        "flags": 0x0800 | (0x08 if member.descriptor else 0),
        "method": member.method,
        "crc": zlib.crc32(member.data),
        "csize": len(member.stored),
        "usize": len(member.data),
        "extra": b"",
    }
    return {**true, **member.both, **lies}


def _local(member: Member, place: int, align: int) -> bytes:
    unknown = {"crc": 0, "csize": 0, "usize": 0} if member.descriptor else {}
    told = _fields(member, {**unknown, **member.local})
    if align:
        short = -(place + 30 + len(told["name"]) + 4) % align
        told["extra"] = b"FB" + struct.pack("<H", short) + b"Z" * short
    lengths = len(told["name"]), told.get("xlen", len(told["extra"]))
    head = struct.pack(
        "<4s5H3L2H", LOCAL, 0, told["flags"], told["method"], 0, 0, told["crc"], told["csize"], told["usize"], *lengths
    )
    return told.get("signature", LOCAL) + head[4:] + told["name"] + told["extra"]


def _descriptor(member: Member) -> bytes:
    told = _fields(member, {})
    return struct.pack("<4s3L", b"PK\7\10", told["crc"], told["csize"], told["usize"]) if member.descriptor else b""


def _central(member: Member, place: int) -> bytes:
    told = {"offset": place, **_fields(member, member.central)}
    lengths = len(told["name"]), told.get("xlen", len(told["extra"]))
    head = (CENTRAL, 0, 0, told["flags"], told["method"], 0, 0, told["crc"], told["csize"], told["usize"], *lengths)
    return (
        struct.pack("<4s6H3L5H2L", *head, 0, 0, 0, told.get("attributes", 0), told["offset"])
        + told["name"]
        + told["extra"]
    )


def _zip64_end(true: Mapping[str, int], place: int) -> bytes:
    counts = true["count"], true["count"], true["size"], true["offset"]
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 0x031E, 45, 0, 0, *counts)
    return record + struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)


def _end(told: Mapping[str, int]) -> bytes:
    disk, count = told["disk"], told["count"]
    return struct.pack("<4s4H2LH", END, disk, disk, count, count, told["size"], told["offset"], told.get("comment", 0))
