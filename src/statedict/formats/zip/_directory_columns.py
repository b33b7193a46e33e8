"""Check archives of thousands of members with arrays: 1 µs a member; one at a time takes 9.

Only archives as PyTorch writes them are accepted: members in order, stored, beyond 4 GiB with zip64 records. All others,
and damaged ones, are left to the loop in `_members`, which reports what is wrong; so this can be strict and needs no
messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from statedict.files import File

from .._rolling import Bytes, Numbers, rolling
from ._directory import DESCRIPTOR, FOLDER, KIND, ONES, PLAIN_FILE, STORED, UNICODE_PATH, UTF8, WIDE
from ._layout import CENTRAL, LOCAL
from ._members import ManyMembers

DESCRIPTOR_ROW = np.dtype([("signature", "<u4"), ("crc", "<u4"), ("packed", "<u4"), ("nbytes", "<u4")])
WIDE_ROW = np.dtype([("signature", "<u4"), ("crc", "<u4"), ("packed", "<u8"), ("nbytes", "<u8")])
EXTRA = np.dtype([("kind", "<u2"), ("length", "<u2")])
NUMBER = np.dtype([("number", "<u8")])
# The zip64 record of a local header, three numbers at most, and the head of the field that pads it.
LONGEST_EXTRA = EXTRA.itemsize + 3 * NUMBER.itemsize + EXTRA.itemsize
# Archives with longer names are left to the loop, because each row of the arrays has room for the longest name.
LONGEST_NAME = 512
# For larger members, a short read for each (1.3 µs) is faster than reading all of the file, a BLOCK at a time.
SPARSE = 4 << 10
BLOCK = 1 << 20


def locate_many(file: File, directory: bytes, count: int, end: int) -> tuple[ManyMembers, int] | None:
    """Return the members and the number of unused bytes between them, as `locate` does; None if `locate` must decide."""
    places = _chain(directory, count)
    if places is None:
        return None
    raw = np.frombuffer(directory, np.uint8)
    entries = _rows(raw, places, CENTRAL)
    lengths = entries["name"].astype(np.int64)
    numbers = _widened(raw, places + CENTRAL.itemsize + lengths, entries)
    if numbers is None or not _plain_entries(entries) or (numbers[0] != numbers[1]).any():
        return None
    sizes, _, starts = numbers
    longest = int(lengths.max())
    if starts[0] or (np.diff(starts) <= 0).any() or starts[-1] + LOCAL.itemsize > end or longest > LONGEST_NAME:
        return None
    borders = _borders(file, np.append(starts, end), LOCAL.itemsize + longest + LONGEST_EXTRA)
    if borders is None:
        return None
    payloads = _payloads(borders[:-1, WIDE_ROW.itemsize :], entries, sizes, starts, raw, places)
    if payloads is None:
        return None
    described = (entries["flags"] & DESCRIPTOR).astype(bool)
    limits = np.append(starts[1:], end)
    wide = entries["extra"] != 0
    ends = payloads + sizes + np.where(described, np.where(wide, WIDE_ROW.itemsize, DESCRIPTOR_ROW.itemsize), 0)
    if (ends > limits).any() or (ends != limits)[described].any():
        return None
    for rows, dtype in ((described & ~wide, DESCRIPTOR_ROW), (described & wide, WIDE_ROW)):
        found = borders[1:, WIDE_ROW.itemsize - dtype.itemsize : WIDE_ROW.itemsize][rows]
        if not _described(_as(found, dtype), entries["crc"][rows], sizes[rows]):
            return None
    decoded = directory.decode("latin-1")
    froms = places + CENTRAL.itemsize
    names = [decoded[a:b] for a, b in zip(froms.tolist(), (froms + lengths).tolist())]
    members = ManyMembers(names, payloads, sizes, entries["crc"].astype(np.int64))
    # Entries for folders are left to the loop, too.
    if not members.text.isascii() or "/\n" in f"{members.text}\n":
        return None
    return members, int((limits - ends).sum())


def _chain(directory: bytes, count: int) -> Numbers | None:
    """Return the offset of each entry if `count` entries without comments fill the directory; otherwise None."""
    raw = np.frombuffer(directory, np.uint8)
    # Every entry begins with the signature, but a name can contain it, too: all occurrences must be consecutive entries.
    found = np.flatnonzero((raw[:-3] == 0x50) & (raw[1:-2] == 0x4B) & (raw[2:-1] == 1) & (raw[3:] == 2))
    if len(found) != count or not count or found[-1] + CENTRAL.itemsize > len(raw):
        return None
    entries = _rows(raw, found, CENTRAL)
    lengths = entries["name"].astype(np.int64) + entries["extra"]
    if found[0] or (found + CENTRAL.itemsize + lengths != np.append(found[1:], len(raw))).any():
        return None
    return found.astype(np.int64)


def _widened(raw: Bytes, extras: Numbers, entries: np.ndarray[Any, Any]) -> Numbers | None:
    """Return sizes, stored sizes and offsets, with those that are all ones replaced from the zip64 record at `extras`; None
    if an extra field is anything but that record."""
    narrow = np.array([entries[field] for field in ("nbytes", "packed", "start")], np.int64)
    missing = narrow == ONES
    counts = missing.sum(axis=0)
    wide = np.flatnonzero(entries["extra"])
    if (counts[entries["extra"] == 0] != 0).any():
        return None
    if not len(wide):
        return narrow
    fields = _rows(raw, extras[wide], EXTRA)
    alone = (fields["kind"] == WIDE) & (counts[wide] > 0) & (fields["length"] == 8 * counts[wide])
    if not alone.all() or (entries["extra"][wide] != EXTRA.itemsize + 8 * counts[wide]).any():
        return None
    at = extras[wide] + EXTRA.itemsize
    for column, absent in zip(narrow, missing[:, wide]):
        column[wide[absent]] = _rows(raw, at[absent], NUMBER)["number"]
        at = at + 8 * absent
    # Numbers of 64 bits become negative.
    return None if (narrow < 0).any() else narrow


def _rows(raw: Bytes, places: Numbers, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the records of a structured dtype that begin at these offsets."""
    return _as(rolling(raw, dtype.itemsize)[places], dtype)


def _as(table: Bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the rows of a table of bytes as records."""
    return np.ascontiguousarray(table).view(dtype)[:, 0]


def _borders(file: File, places: Numbers, reach: int) -> Bytes | None:
    """Return a row for each place: the bytes before it, where a descriptor can end, and `reach` bytes from it on.

    The first place is the beginning of the file; the bytes before it are zeros. Returns None if the others do not fit.
    """
    before = WIDE_ROW.itemsize
    if places[1] < before or places[-1] + reach > file.size:
        return None
    if places[-1] > SPARSE * len(places):
        rows = [bytes(before) + file.read(0, reach)]
        rows += [file.read(place - before, before + reach) for place in places[1:].tolist()]
    else:
        rows = list(_rows_in_blocks(file, places, before, reach))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(places), -1)


def _rows_in_blocks(file: File, places: Numbers, before: int, reach: int) -> Iterator[bytes]:
    """Yield the rows of places that are near each other: those within a block of the file are read in one call."""
    bounds = [0, *(np.flatnonzero(np.diff(places // BLOCK)) + 1).tolist(), len(places)]
    for first, last in pairwise(bounds):
        some = places[first:last] - places[first]
        zeros, start = (before, 0) if first == 0 else (0, int(places[first]) - before)
        found = bytes(zeros) + file.read(start, int(some[-1]) + before + reach - zeros)
        yield rolling(np.frombuffer(found, np.uint8), before + reach)[some].tobytes()


def _plain_entries(entries: np.ndarray[Any, Any]) -> bool:
    unusual = (entries["comment_disk_attributes"][:, :2] != 0).any(axis=1)
    # The attributes that `is_special` refuses.
    unusual |= (entries["comment_disk_attributes"][:, 3] & FOLDER) != 0
    unusual |= ((entries["comment_disk_attributes"][:, 4] & KIND) | PLAIN_FILE) != PLAIN_FILE
    unusual |= entries["method_and_time"][:, 0] != STORED
    unusual |= (entries["flags"] & ~np.uint16(DESCRIPTOR | UTF8)) != 0
    return not unusual.any()


def _payloads(
    found: Bytes, entries: np.ndarray[Any, Any], sizes: Numbers, starts: Numbers, raw: Bytes, places: Numbers
) -> Numbers | None:
    """Return the offset of each member's bytes if every local header (at the start of its row) agrees with the directory."""
    heads, lengths = _as(found[:, : LOCAL.itemsize], LOCAL), entries["name"].astype(np.int64)
    later = (entries["flags"] & DESCRIPTOR) != 0
    wrong = heads["signature"] != int.from_bytes(b"PK\3\4", "little")
    wrong |= (heads["flags"] != entries["flags"]) | (heads["method_and_time"][:, 0] != STORED)
    wrong |= heads["name"] != entries["name"]
    for place, expected in enumerate((entries["crc"], sizes, sizes)):
        said = heads["crc_and_sizes"][:, place]
        wrong |= (said != expected) & ~(later & (said == 0))
    # All ones would refer to the zip64 record.
    wrong |= (heads["crc_and_sizes"][:, 1:] == ONES).any(axis=1)
    if wrong.any() or not _are_padded(found, LOCAL.itemsize + lengths, heads["extra"].astype(np.int64), sizes, starts):
        return None
    within = np.arange(int(lengths.max()))
    expected = rolling(np.append(raw, np.zeros(len(within), np.uint8)), len(within))[places + CENTRAL.itemsize]
    names = found[:, LOCAL.itemsize : LOCAL.itemsize + len(within)]
    if ((names != expected) & (within < lengths[:, None])).any():
        return None
    payloads: Numbers = starts + LOCAL.itemsize + lengths + heads["extra"]
    return payloads


def _are_padded(found: Bytes, at: Numbers, left: Numbers, sizes: Numbers, starts: Numbers) -> bool:
    """Return whether the extra fields (`left` bytes at `at` in each row) are at most a correct zip64 record and one field of
    another kind."""
    rows = np.flatnonzero(left)
    if (left[rows] < EXTRA.itemsize).any():
        return False
    fields = _fields(found, rows, at[rows], EXTRA)
    wide = rows[fields["kind"] == WIDE]
    nbytes = fields["length"][fields["kind"] == WIDE].astype(np.int64)
    if (nbytes % NUMBER.itemsize != 0).any() or (nbytes > 3 * NUMBER.itemsize).any():
        return False
    for index in range(3):
        some = nbytes > index * NUMBER.itemsize
        numbers = _fields(found, wide[some], at[wide[some]] + EXTRA.itemsize + index * NUMBER.itemsize, NUMBER)
        numbers = numbers["number"].astype(np.int64)
        if not ((numbers == 0) | (numbers == sizes[wide[some]]) | (numbers == starts[wide[some]])).all():
            return False
    at, left = at.copy(), left.copy()
    at[wide] += EXTRA.itemsize + nbytes
    left[wide] -= EXTRA.itemsize + nbytes
    rows = np.flatnonzero(left)
    if (left[rows] < EXTRA.itemsize).any():
        return False
    fields = _fields(found, rows, at[rows], EXTRA)
    whole = (fields["length"] + EXTRA.itemsize == left[rows]) & ~np.isin(fields["kind"], (WIDE, UNICODE_PATH))
    return bool(whole.all())


def _fields(found: Bytes, rows: Numbers, at: Numbers, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return the records that begin at `at` in these rows."""
    return _as(found[rows[:, None], at[:, None] + np.arange(dtype.itemsize)], dtype)


def _described(found: np.ndarray[Any, Any], crcs: Numbers, sizes: Numbers) -> bool:
    """Return whether each descriptor agrees with its entry."""
    same = found["signature"] == int.from_bytes(b"PK\7\x08", "little")
    same &= (found["crc"] == crcs) & (found["packed"] == sizes) & (found["nbytes"] == sizes)
    return bool(same.all())
