"""Archives of many thousands of members, checked with arrays: 1 µs a member, where one at a time costs 9.

Only what PyTorch writes is recognised here: members in order, stored, without zip64 records. Whatever else there is, and
whatever is wrong, is left to the loop that says what (`_zip_headers`); so this can be strict and needs no messages.
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
EXTRA = np.dtype([("kind", "<u2"), ("length", "<u2")])
# Longer names are for the loop: each row of the arrays has room for the longest.
LONGEST_NAME = 512
# Where members are larger than this, a short read for each (1.3 µs) is quicker than reading through them, a BLOCK at a time.
SPARSE = 4 << 10
BLOCK = 1 << 20


def locate_many(file: File, directory: bytes, count: int, end: int) -> tuple[ManyMembers, int] | None:
    """The members and how many bytes lie hidden between them, as `locate` gives them; None where it must decide."""
    places = _chain(directory, count)
    if places is None:
        return None
    raw = np.frombuffer(directory, np.uint8)
    entries = _rows(raw, places, CENTRAL)
    if not _plain_entries(entries):
        return None
    sizes, starts, lengths = (entries[field].astype(np.int64) for field in ("nbytes", "start", "name"))
    longest = int(lengths.max())
    if starts[0] or (np.diff(starts) <= 0).any() or starts[-1] + LOCAL.itemsize > end or longest > LONGEST_NAME:
        return None
    borders = _borders(file, np.append(starts, end), LOCAL.itemsize + longest + EXTRA.itemsize)
    if borders is None:
        return None
    after = borders[:-1, DESCRIPTOR_ROW.itemsize :]
    payloads = _payloads(after, entries, starts, lengths, raw, places)
    if payloads is None:
        return None
    described = (entries["flags"] & DESCRIPTOR).astype(bool)
    limits = np.append(starts[1:], end)
    ends = payloads + sizes + np.where(described, DESCRIPTOR_ROW.itemsize, 0)
    if (ends > limits).any() or (ends != limits)[described].any():
        return None
    if not _described(borders[1:, : DESCRIPTOR_ROW.itemsize][described], entries[described]):
        return None
    decoded = directory.decode("latin-1")
    froms = places + CENTRAL.itemsize
    names = [decoded[a:b] for a, b in zip(froms.tolist(), (froms + lengths).tolist())]
    members = ManyMembers(names, payloads, sizes, entries["crc"].astype(np.int64))
    # Those of folders are left to the loop too.
    if not members.text.isascii() or "/\n" in f"{members.text}\n":
        return None
    return members, int((limits - ends).sum())


def _chain(directory: bytes, count: int) -> Numbers | None:
    """Where each entry begins, if `count` entries without extra fields and comments fill the directory."""
    raw = np.frombuffer(directory, np.uint8)
    # Every entry begins with its signature, and so may a name: only if all that are found follow each other it is a chain.
    found = np.flatnonzero((raw[:-3] == 0x50) & (raw[1:-2] == 0x4B) & (raw[2:-1] == 1) & (raw[3:] == 2))
    if len(found) != count or not count or found[-1] + CENTRAL.itemsize > len(raw):
        return None
    lengths = _rows(raw, found, CENTRAL)["name"].astype(np.int64)
    if found[0] or (found + CENTRAL.itemsize + lengths != np.append(found[1:], len(raw))).any():
        return None
    return found.astype(np.int64)


def _rows(raw: Bytes, places: Numbers, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The records of a structured dtype that begin at the places."""
    return _as(rolling(raw, dtype.itemsize)[places], dtype)


def _as(table: Bytes, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The rows of a table of bytes as records."""
    return np.ascontiguousarray(table).view(dtype)[:, 0]


def _borders(file: File, places: Numbers, reach: int) -> Bytes | None:
    """A row for each place: the bytes before it where a descriptor may end, and `reach` bytes from it.

    The first place is the beginning of the file, before which there are zeros. None where the others have no room.
    """
    before = DESCRIPTOR_ROW.itemsize
    if places[1] < before or places[-1] + reach > file.size:
        return None
    if places[-1] > SPARSE * len(places):
        rows = [bytes(before) + file.read(0, reach)]
        rows += [file.read(place - before, before + reach) for place in places[1:].tolist()]
    else:
        rows = list(_rows_in_blocks(file, places, before, reach))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(places), -1)


def _rows_in_blocks(file: File, places: Numbers, before: int, reach: int) -> Iterator[bytes]:
    """The rows of places that are near one another: those within a block of the file are read in one go."""
    bounds = [0, *(np.flatnonzero(np.diff(places // BLOCK)) + 1).tolist(), len(places)]
    for first, last in pairwise(bounds):
        some = places[first:last] - places[first]
        zeros, start = (before, 0) if first == 0 else (0, int(places[first]) - before)
        found = bytes(zeros) + file.read(start, int(some[-1]) + before + reach - zeros)
        yield rolling(np.frombuffer(found, np.uint8), before + reach)[some].tobytes()


def _plain_entries(entries: np.ndarray[Any, Any]) -> bool:
    unusual = entries["extra"] != 0
    unusual |= (entries["comment_disk_attributes"][:, :2] != 0).any(axis=1)
    # Attributes that `is_special` refuses.
    unusual |= (entries["comment_disk_attributes"][:, 3] & FOLDER) != 0
    unusual |= ((entries["comment_disk_attributes"][:, 4] & KIND) | PLAIN_FILE) != PLAIN_FILE
    unusual |= entries["method_and_time"][:, 0] != STORED
    unusual |= (entries["flags"] & ~np.uint16(DESCRIPTOR | UTF8)) != 0
    unusual |= (entries["packed"] != entries["nbytes"]) | (entries["nbytes"] == ONES) | (entries["start"] == ONES)
    return not unusual.any()


def _payloads(
    found: Bytes, entries: np.ndarray[Any, Any], starts: Numbers, lengths: Numbers, raw: Bytes, places: Numbers
) -> Numbers | None:
    """Where the members' bytes begin, if every local header (at the beginning of the rows) says what the directory does."""
    heads = _as(found[:, : LOCAL.itemsize], LOCAL)
    later = (entries["flags"] & DESCRIPTOR) != 0
    wrong = heads["signature"] != int.from_bytes(b"PK\3\4", "little")
    wrong |= (heads["flags"] != entries["flags"]) | (heads["method_and_time"][:, 0] != STORED)
    wrong |= heads["name"] != entries["name"]
    for place, field in enumerate(("crc", "packed", "nbytes")):
        said = heads["crc_and_sizes"][:, place]
        wrong |= (said != entries[field]) & ~(later & (said == 0))
    extras = heads["extra"].astype(np.int64)
    wrong |= (extras != 0) & (extras < EXTRA.itemsize)
    if wrong.any():
        return None
    padded = np.flatnonzero(extras)
    after = (LOCAL.itemsize + lengths[padded])[:, None] + np.arange(EXTRA.itemsize)
    fields = _as(found[padded[:, None], after], EXTRA)
    if (
        np.isin(fields["kind"], (WIDE, UNICODE_PATH)).any()
        or (fields["length"] + EXTRA.itemsize != extras[padded]).any()
    ):
        return None
    within = np.arange(int(lengths.max()))
    expected = rolling(np.append(raw, np.zeros(len(within), np.uint8)), len(within))[places + CENTRAL.itemsize]
    names = found[:, LOCAL.itemsize : LOCAL.itemsize + len(within)]
    if ((names != expected) & (within < lengths[:, None])).any():
        return None
    payloads: Numbers = starts + LOCAL.itemsize + lengths + extras
    return payloads


def _described(rows: Bytes, entries: np.ndarray[Any, Any]) -> bool:
    """Whether each row is the descriptor that repeats the entry."""
    found = _as(rows, DESCRIPTOR_ROW)
    same = found["signature"] == int.from_bytes(b"PK\7\x08", "little")
    for field in ("crc", "packed", "nbytes"):
        same &= found[field] == entries[field]
    return bool(same.all())
