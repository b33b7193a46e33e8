"""Archives of many thousands of members, checked with arrays: 1 µs a member, where one at a time costs 9.

Only what PyTorch writes is recognised here: members in order, stored, without zip64 records. Whatever else there is, and
whatever is wrong, is left to the loop that says what (`_zip_headers`); so this can be strict and needs no messages.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numpy as np

from ._zip_entries import DESCRIPTOR, ONES, STORED, UTF8
from ._zip_headers import Member
from ._zip_places import CENTRAL, LOCAL

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]

DESCRIPTOR_ROW = np.dtype([("signature", "<u4"), ("crc", "<u4"), ("packed", "<u4"), ("nbytes", "<u4")])


def locate_many(mapped: memoryview, directory: bytes, count: int, end: int) -> tuple[list[Member], int] | None:
    """The members and how many bytes lie hidden between them, as `locate` gives them; None where it must decide."""
    places = _chain(directory, count)
    if places is None:
        return None
    raw = np.frombuffer(directory, np.uint8)
    entries = _rows(raw, places, CENTRAL)
    if not _plain_entries(entries):
        return None
    sizes, starts, lengths = (entries[field].astype(np.int64) for field in ("nbytes", "start", "name"))
    filed = np.frombuffer(mapped, np.uint8)
    if starts[0] or (np.diff(starts) <= 0).any() or starts[-1] + LOCAL.itemsize > end:
        return None
    payloads = _payloads(filed, entries, starts, lengths, raw, places)
    if payloads is None:
        return None
    described = (entries["flags"] & DESCRIPTOR).astype(bool)
    limits = np.append(starts[1:], end)
    ends = payloads + sizes + np.where(described, DESCRIPTOR_ROW.itemsize, 0)
    if (ends > limits).any() or not _described(filed, entries[described], (payloads + sizes)[described]):
        return None
    text = directory.decode("latin-1")
    froms = places + CENTRAL.itemsize
    names = [text[a:b] for a, b in zip(froms.tolist(), (froms + lengths).tolist())]
    if not "".join(names).isascii():
        return None
    columns = names, payloads.tolist(), sizes.tolist(), sizes.tolist(), repeat(STORED), entries["crc"].tolist()
    return list(map(Member._make, zip(*columns))), int((limits - ends).sum())


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
    gathered = raw[places[:, None] + np.arange(dtype.itemsize)]
    return np.ascontiguousarray(gathered).view(dtype)[:, 0]


def _plain_entries(entries: np.ndarray[Any, Any]) -> bool:
    unusual = entries["extra"] != 0
    unusual |= (entries["comment_disk_attributes"][:, :2] != 0).any(axis=1)
    unusual |= entries["method_and_time"][:, 0] != STORED
    unusual |= (entries["flags"] & ~np.uint16(DESCRIPTOR | UTF8)) != 0
    unusual |= (entries["packed"] != entries["nbytes"]) | (entries["nbytes"] == ONES) | (entries["start"] == ONES)
    return not unusual.any()


def _payloads(
    filed: Bytes, entries: np.ndarray[Any, Any], starts: Numbers, lengths: Numbers, raw: Bytes, places: Numbers
) -> Numbers | None:
    """Where the members' bytes begin, if every local header says what the directory does."""
    heads = _rows(filed, starts, LOCAL)
    later = (entries["flags"] & DESCRIPTOR) != 0
    wrong = heads["signature"] != int.from_bytes(b"PK\3\4", "little")
    wrong |= (heads["flags"] != entries["flags"]) | (heads["method_and_time"][:, 0] != STORED)
    wrong |= heads["name"] != entries["name"]
    for place, field in enumerate(("crc", "packed", "nbytes")):
        found = heads["crc_and_sizes"][:, place]
        wrong |= (found != entries[field]) & ~(later & (found == 0))
    extras = heads["extra"].astype(np.int64)
    names = starts + LOCAL.itemsize
    payloads: Numbers = names + lengths + extras
    wrong |= (extras != 0) & (extras < 4)
    if wrong.any() or (payloads > len(filed)).any():
        return None
    padded = extras != 0
    fields = _rows(filed, (payloads - extras)[padded], EXTRA)
    if (fields["kind"] == 1).any() or (fields["length"] + 4 != extras[padded]).any():
        return None
    same = filed[_runs(names, lengths)] == raw[_runs(places + CENTRAL.itemsize, lengths)]
    return payloads if same.all() else None


def _described(filed: Bytes, entries: np.ndarray[Any, Any], places: Numbers) -> bool:
    """Whether the descriptor at each place repeats the entry."""
    rows = _rows(filed, places, DESCRIPTOR_ROW)
    same = rows["signature"] == int.from_bytes(b"PK\7\x08", "little")
    for field in ("crc", "packed", "nbytes"):
        same &= rows[field] == entries[field]
    return bool(same.all())


def _runs(starts: Numbers, lengths: Numbers) -> Numbers:
    """All positions of the runs that begin at `starts`, one after the other."""
    before = np.cumsum(lengths) - lengths
    runs: Numbers = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return runs


EXTRA = np.dtype([("kind", "<u2"), ("length", "<u2")])
