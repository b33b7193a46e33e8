"""Find records ahead of the machine, with arrays: 1 µs a tensor (`_records` explains why).

A record begins with two MARKs, two GETs and the text of its key. The bytes after the key, its *tail*, are the same for all
tensors of one dtype and shape, except for the numbers of the memo slots, which increase. So offsets where a record can begin
are found by their first bytes; the tail of the first record is decoded, and all records with the same bytes have the same
meaning; then the first of the others is decoded, until all are known.

A scan only describes bytes; its results are used when the machine arrives at their offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from statedict.files import grouped
from statedict.state import RowKind

from ..._rolling import Bytes, Numbers, rolling, uint32
from ._machine import Machine
from ._record_gaps import NONE, gaps_before
from ._record_runs import Columns, Scan
from ._record_syntax import EARLY, TRAITS, record
from ._records import are_hooks, location_of, number_of, shape_of, slot, storage_kind

# The bytes of a scan: more each time, so that a scan without results is cheap.
LEAST, MOST = 64 << 10, 1 << 20
# Fewer records are faster one by one, and so are those of more kinds, because each kind takes some 50 µs.
FEW, KINDS = 32, 128
# Two MARKs, two GETs and `X`; then the length of the key in four bytes, and at most 19 digits.
HEAD = 2 + 5 + 5 + 1
LONGEST = HEAD + 4 + 19
# Keys with more digits may not fit into 64 bits.
DIGITS = 18
# At most this many bytes of a scan's end are scanned again by the next one.
CUT = 1 << 10
# A scan is repeated after it has missed this many records: when it was made, the memo did not yet have all types. The next
# time, it is repeated after four times as many: in a pickle of thousands of kinds, most scans find nothing.
MISSES = 32
# The groups of a record with the numbers of slots, after that of the key.
PUTS = (4, 7, 10, 12, 15, 16, 17)


def scan_ahead(m: Machine, at: int, begin: int) -> Scan:
    """Scan the pickle from `begin` on; the record at `at` was read last."""
    width = max(LEAST, m.seen.width)
    m.seen.width = min(4 * width, MOST)
    before = m.seen.scan
    again = before is not None and at < before.stop
    stop = before.stop if again else min(m.size, begin + width)
    scan = Scan(stop, 4 * before.patience if again else MISSES)
    scan.function = _function(m, at)
    raw = np.frombuffer(m.data, np.uint8, stop - begin, begin)
    found = _candidates(raw) if len(raw) > LONGEST else None
    if found is not None and len(found.starts) >= FEW:
        tails, of = _kinds(m, raw, begin, found)
        chosen = np.flatnonzero(of >= 0)
        if len(chosen):
            _describe(m, scan, raw, begin, tails, _Found(*(column[chosen] for column in found)), of[chosen])
            # The next scan begins with the record that the end of this one has cut.
            scan.stop = max(scan.columns.ends[-1], stop - CUT)
    return scan


def _function(m: Machine, at: int) -> bytes:
    """Return the GET that ends at `at`, which pushed the function; nothing if there is none."""
    for width in (2, 5):
        token = m.data[max(at - width, 0) : at]
        if token[:1] == (b"h" if width == 2 else b"j") and slot(m, token) is m.rebuild:
            return token
    return b""


class _Found(NamedTuple):
    """The offsets of records: of their two MARKs, of the first byte of their key and of the byte after it."""

    starts: Numbers
    keys: Numbers
    after: Numbers


class _Tail(NamedTuple):
    """The bytes after the key in all records of one kind.

    Attributes:
        content: the bytes.
        slots: the positions of slot numbers in them.
        kind: the kind of the tensors.
        nbytes: the size of the storage that each of them claims.
    """

    content: Bytes
    slots: Numbers
    kind: RowKind
    nbytes: int


def _candidates(raw: Bytes) -> _Found:
    """Return the offsets at which a record can begin."""
    marks = np.flatnonzero((raw[:-1] == 0x28) & (raw[1:] == 0x28))
    marks = marks[marks < len(raw) - LONGEST]
    texts = marks + 2
    whole = np.ones(len(marks), bool)
    for _ in range(2):
        short = raw[texts] == b"h"[0]
        whole &= short | (raw[texts] == b"j"[0])
        texts = texts + np.where(short, 2, 5)
    length = raw[texts + 1]
    whole &= (raw[texts] == b"X"[0]) & (length > 0) & (length < 20) & ~rolling(raw, 3)[texts + 2].any(axis=1)
    return _Found(marks[whole], texts[whole] + 5, (texts + 5 + length)[whole])


def _kinds(m: Machine, raw: Bytes, begin: int, found: _Found) -> tuple[list[_Tail], Numbers]:
    """Return the different tails and the number of each record's tail, negative for records without a usual one."""
    heads = rolling(raw, HEAD)[found.starts]
    of = np.full(len(heads), -1)
    tails: list[_Tail] = []
    for _ in range(KINDS):
        left = np.flatnonzero(of == -1)
        if not len(left):
            break
        first = int(left[0])
        of[first] = -2
        tail = _tail(m, begin + int(found.starts[first]), begin + int(found.after[first]), begin + len(raw))
        if tail is None:
            continue
        width = len(tail.content)
        left = left[found.after[left] <= len(raw) - width]
        same = rolling(raw, width)[found.after[left]] == tail.content
        same[:, (tail.slots[:, None] + np.arange(4)).ravel()] = True
        shown = int(found.keys[first] - found.starts[first]) - 4
        alike = (heads[left, :shown] == heads[first, :shown]).all(axis=1)
        of[left[same.all(axis=1) & alike]] = len(tails)
        tails.append(tail)
    return tails, of


def _tail(m: Machine, start: int, after: int, stop: int) -> _Tail | None:
    """Return the tail of the record with its MARKs at `start` and the end of its key at `after`; None if it is not usual."""
    found = record(False).match(m.data, start, stop)
    if found is None or found.end(3) != after:
        return None
    token, _, _, _, place, numel, _, offset, size, _, stride, _, flag, hooks, *_ = found.groups(b"")
    dtype, location = storage_kind(m, token), location_of(m, place)
    if dtype is None or location is None or not are_hooks(m, hooks):
        return None
    spec, needed = m.seen.shapes.get((token, offset, size, stride)) or shape_of(m, dtype, (token, offset, size, stride))
    nbytes = number_of(m, numel) * dtype.itemsize
    if not 0 <= needed <= nbytes:
        return None
    slots = [found.start(group) - after for group in PUTS if found.start(group) >= 0]
    content = np.frombuffer(m.data[after : found.end()], np.uint8)
    return _Tail(content, np.array(slots), RowKind(spec, TRAITS[flag], location), nbytes)


def _describe(
    m: Machine, scan: Scan, raw: Bytes, begin: int, tails: Sequence[_Tail], found: _Found, of: Numbers
) -> None:
    """Fill the columns of the scan."""
    starts, keys, after = found
    ends = after + np.array([len(tail.content) for tail in tails])[of]
    firsts = uint32(raw, after + 1)
    counts = np.array([len(tail.slots) for tail in tails])[of]
    ordered = firsts >= EARLY
    for number, tail in enumerate(tails):
        some = np.flatnonzero(of == number)
        for index, place in enumerate(tail.slots):
            ordered[some] &= uint32(raw, after[some] + place) == firsts[some] + index
    decimals = _decimals(raw, keys, after)
    usable = np.flatnonzero(ordered & (decimals >= 0))
    rows = np.full(len(starts), -1)
    if len(usable) and m.rows is not None:
        kinds, claims = [tail.kind for tail in tails], [tail.nbytes for tail in tails]
        rows[usable] = m.rows.offer(kinds, claims, of[usable], decimals[usable])
    tops = firsts + counts
    gaps, *names = gaps_before(raw, scan.function, starts, ends, firsts, tops)
    gaps[(rows < 0) | (np.append(-1, rows[:-1]) < 0)] = NONE
    # The gaps of a run are of one kind.
    gaps[1:][(gaps[:-1] != NONE) & (gaps[:-1] != gaps[1:])] = NONE
    breaks = np.flatnonzero(np.append(gaps[1:], NONE) == NONE)
    lasts = breaks[np.searchsorted(breaks, np.arange(len(starts)))] + 1
    columns = rows, firsts, begin + ends, tops - 1, lasts, begin + starts, gaps, begin + names[0], *names[1:]
    scan.columns = Columns(*(column.tolist() for column in columns))
    scan.numbers = dict(zip(scan.columns.starts, range(len(starts))))


def _decimals(raw: Bytes, starts: Numbers, stops: Numbers) -> Numbers:
    """Return the decimal numbers at these offsets; -1 for text that is not a number as Python writes it."""
    found = np.full(len(starts), -1)
    for width, some in grouped(stops - starts):
        digits = rolling(raw, width)[starts[some]] - np.uint8(ord("0"))
        if width <= DIGITS:
            usual = (digits <= 9).all(axis=1) & (digits[:, 0].astype(bool) | (width == 1))
            found[some] = np.where(usual, digits @ (10 ** np.arange(width - 1, -1, -1)), -1)
    return found
