"""Thousands of usual records in a row, found with arrays: 1 µs a tensor, where an expression that takes each apart needs 4.

*Theory of operation.* A record (see `_record`) begins with two MARKs, two GETs and the text of its key; what follows it,
its tail, is the same for all tensors of one dtype and shape, but for the numbers of the memo slots that it sets, which
count up. So the places where records may begin are found by their first bytes, and the tail of the first is taken apart:
all that have the same bytes there mean the same. The next record that differs is taken apart, until all are known. Then
everything that is between the tails must be what the machine would have to find there: an end of 1,000 items and their next
MARK, perhaps; a name as long as it says; slots in order. The stretch ends before the first record for which any of this
does not hold. Nothing is guessed: a stretch is what the same opcodes, one after the other, would have done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from statedict.errors import FormatError
from statedict.files import grouped
from statedict.state import Leaf, RowKind

from ..._rolling import Bytes, Numbers, rolling, uint32
from .._values import Records
from ._containers import set_items
from ._machine import Machine
from ._record import EARLY, TRAITS, are_hooks, location_of, number_of, record, shape_of, slot, storage_kind

# Bytes that are looked at: more each time, so that looking in vain costs little.
LEAST, MOST = 64 << 10, 1 << 20
# Fewer records than this are no stretch (some 200 µs are spent on each), and more kinds of them are not worth it.
FEW, KINDS = 128, 64
# `h reb ( ( h storage`, `h type` or `j type`, `X`; then the length of the key in four bytes, and 19 digits at most.
BEFORE, HEAD = 2, 12
LONGEST = HEAD + 4 + 19
# The PUT of a name and the GET of the function: what stands between a name and its record.
NAMED = 7
# Numbers of more digits are no keys of storages; so many fit into 64 bits.
DIGITS = 18
_CONTROL = re.compile(rb"[\0-\x1f]")
# The groups of a record that are the numbers of slots, after that of the key.
PUTS = (4, 7, 10, 12, 15, 16, 17)


class _Tail(NamedTuple):
    """What records of one kind have after their key, but for the slots.

    Attributes:
        content: the bytes; slots: where in them the numbers of slots begin.
        kind, nbytes: what the tensors are, and how long a storage they claim.
    """

    content: Bytes
    slots: Numbers
    kind: RowKind
    nbytes: int


def read_stretch(m: Machine, at: int) -> int:
    """Push the names and leaves of the usual records that follow `at`; gives where to go on."""
    width, few = LEAST, FEW
    while m.rows and m.top >= EARLY and m.seen.patience > 0 and m.size - at > FEW:
        stop = _read_window(m, at, min(m.size, at + width), few)
        if stop == at:
            m.seen.patience -= few == FEW
            break
        at, width, few = stop, min(4 * width, MOST), 1
    return at


def _read_window(m: Machine, at: int, end: int, few: int) -> int:
    """The same as far as `end`, if there are at least `few`."""
    raw = np.frombuffer(m.data, np.uint8, end - at, at)
    found = _candidates(raw)
    if len(found.starts) < few:
        if end == m.size:
            m.seen.patience = 0  # There are not enough in all the rest.
        return at
    tails, of = _kinds(m, raw, at, found)
    count = int(np.argmax(of < 0)) if (of < 0).any() else len(of)
    if count < few:
        return at
    return _push(m, raw, at, tails, _Found(*(column[:count] for column in found)), of[:count], few)


class _Found(NamedTuple):
    """Records by where they have their two MARKs, and where their key begins and ends."""

    starts: Numbers
    keys: Numbers
    after: Numbers


def _candidates(raw: Bytes) -> _Found:
    """Where records may begin."""
    marks = np.flatnonzero((raw[:-1] == 0x28) & (raw[1:] == 0x28))
    marks = marks[(marks >= NAMED + 5) & (marks < len(raw) - LONGEST)]
    for place, byte in ((-NAMED, b"r"), (-BEFORE, b"h"), (2, b"h")):
        marks = marks[raw[marks + place] == byte[0]]
    short = (raw[marks + 4] == b"h"[0]) & (raw[marks + 6] == b"X"[0])
    long = (raw[marks + 4] == b"j"[0]) & (raw[marks + 9] == b"X"[0])
    texts = marks + np.where(short, 6, 9)
    length = raw[texts + 1]
    whole = (short | long) & (length > 0) & (length < 20) & ~rolling(raw, 3)[texts + 2].any(axis=1)
    return _Found(marks[whole], texts[whole] + 5, (texts + 5 + length)[whole])


def _kinds(m: Machine, raw: Bytes, at: int, found: _Found) -> tuple[list[_Tail], Numbers]:
    """The tails that there are, and which each record has: -1 where it has none of them."""
    heads = rolling(raw, HEAD)[found.starts - BEFORE]
    of = np.full(len(heads), -1)
    tails: list[_Tail] = []
    while (of < 0).any() and len(tails) < KINDS:
        first = int(np.argmax(of < 0))
        tail = _tail(m, at + int(found.starts[first]), at + int(found.after[first]))
        if tail is None:
            break
        width = len(tail.content)
        left = np.flatnonzero((of < 0) & (found.after <= len(raw) - width))
        same = rolling(raw, width)[found.after[left]] == tail.content
        same[:, (tail.slots[:, None] + np.arange(4)).ravel()] = True
        # What a head has beyond its text belongs to the length of its key, which may differ.
        shown = int(found.keys[first] - found.starts[first]) + BEFORE - 4
        alike = (heads[left, :shown] == heads[first, :shown]).all(axis=1)
        of[left[same.all(axis=1) & alike]] = len(tails)
        tails.append(tail)
        if of[first] < 0:
            break
    return tails, of


def _tail(m: Machine, start: int, after: int) -> _Tail | None:
    """What the record is whose MARKs are at `start` and whose key ends at `after`; None where it is not usual."""
    found = record(False).match(m.data, start, m.size)
    if found is None or found.end(3) != after:
        return None
    token, _, _, _, place, numel, _, offset, size, _, stride, _, flag, hooks, *_ = found.groups(b"")
    dtype, location = storage_kind(m, token), location_of(m, place)
    if dtype is None or location is None or not are_hooks(m, hooks):
        return None
    spec, needed = m.seen.shapes.get((token, offset, size, stride)) or shape_of(m, dtype, (token, offset, size, stride))
    nbytes = number_of(m, numel) * dtype.itemsize
    if slot(m, m.data[start - BEFORE : start]) is not m.rebuild or not 0 <= needed <= nbytes:
        return None
    slots = [found.start(group) - after for group in PUTS if found.start(group) >= 0]
    content = np.frombuffer(m.data[after : found.end()], np.uint8)
    return _Tail(content, np.array(slots), RowKind(spec, TRAITS[flag], location), nbytes)


def _push(m: Machine, raw: Bytes, at: int, tails: Sequence[_Tail], found: _Found, of: Numbers, few: int) -> int:
    """Push those records of which nothing is missing and nothing is between them; gives where the last one ends."""
    starts, keys, after = found
    ends = after + np.array([len(tail.content) for tail in tails])[of]
    slots = np.array([1 + len(tail.slots) for tail in tails])[of]
    firsts = m.top + np.cumsum(slots) - slots
    named = np.append(np.zeros(1, np.int64), ends[:-1])
    # What comes after the last that fits is no record's beginning.
    within = named <= len(raw) - NAMED
    named[~within] = 0
    # A pickler sets 1,000 items at a time.
    split = (raw[named] == b"u"[0]) & (raw[named + 1] == b"("[0])
    named += 2 * split
    whole = within & (raw[named] == b"X"[0]) & (uint32(raw, named + 1) == starts - NAMED - (named + 5))
    whole &= uint32(raw, starts - NAMED + 1) == firsts
    for number, tail in enumerate(tails):
        rows = np.flatnonzero(of == number)
        for index, place in enumerate(tail.slots):
            whole[rows] &= uint32(raw, after[rows] + place) == firsts[rows] + 1 + index
    count = len(whole) if whole.all() else int(np.argmin(whole))
    if count < few:
        return at
    named, split, starts, keys, after, ends = (c[:count] for c in (named, split, starts, keys, after, ends))
    names = _texts(m, at, named + 5, starts - NAMED)
    if names is None:
        return at
    decimals = _decimals(raw, keys, after)
    if decimals is None:
        return at
    kinds, claims = [tail.kind for tail in tails], [tail.nbytes for tail in tails]
    leaves = m.rows and m.rows(Records(kinds, claims, of[:count], decimals))
    if leaves is None:
        return at
    tops = firsts[:count] + slots[:count]
    m.seen.add(firsts[:count].tolist(), (at + named).tolist(), names)
    # A tied tensor asks for the leaf again.
    m.memo.update(zip((tops - 1).tolist(), leaves))
    m.top = int(tops[-1])
    _stack(m, names, leaves, np.flatnonzero(split).tolist(), at, named)
    return at + int(ends[-1])


def _stack(m: Machine, names: list[str], leaves: list[Leaf], splits: list[int], at: int, named: Numbers) -> None:
    """Push them all; before each of the splits what is there is set as items, and marked anew."""
    begin = 0
    for split in splits:
        m.stack += chain.from_iterable(zip(names[begin:split], leaves[begin:split]))
        try:
            set_items(m, m.marks[-1][-1], m.stack)
        except FormatError as error:
            error.offset = at + int(named[split]) - 2
            raise
        m.stack, begin = [], split
    m.stack += chain.from_iterable(zip(names[begin:], leaves[begin:]))


def _decimals(raw: Bytes, starts: Numbers, stops: Numbers) -> Numbers | None:
    """The numbers that are written there; None where one is not written as Python writes it."""
    found = np.zeros(len(starts), np.int64)
    for width, rows in grouped(stops - starts):
        digits = rolling(raw, width)[starts[rows]] - np.uint8(ord("0"))
        if width > DIGITS or (digits > 9).any() or (width > 1 and not digits[:, 0].all()):
            return None
        found[rows] = digits @ (10 ** np.arange(width - 1, -1, -1))
    return found


def _cut(m: Machine, at: int, starts: Numbers, stops: Numbers) -> list[bytes]:
    data = m.data
    return [data[start:stop] for start, stop in zip((at + starts).tolist(), (at + stops).tolist())]


def _texts(m: Machine, at: int, starts: Numbers, stops: Numbers) -> list[str] | None:
    """The names, decoded; None where one of them has control characters, or is what the quick paths leave alone."""
    if (stops - starts).max() > m.limits.string_bytes:
        return None
    names = _cut(m, at, starts, stops)
    if _CONTROL.search(b"".join(names)):
        return None
    return decoded(names)


def decoded(names: Iterable[bytes]) -> list[str] | None:
    """The names as text; None where they are not that, or one could be taken for a location.

    No name has a control character in it, so a zero byte can stand between two.
    """
    try:
        text = b"\0".join(names).decode("utf-8", "surrogatepass").split("\0")
    except UnicodeDecodeError:
        return None
    return None if "cpu" in text else text
