"""Read what is between two records of a pickle, for all of them at once.

A gap has the name of the second record, as text or from a slot of the memo. Before it there may be `u(`, because a pickler
sets 1,000 items at a time; or the end of one dict and the beginning of the next, as in the state of an optimizer:
`uK.}r....(` (SETITEMS, BININT1, EMPTY_DICT, LONG_BINPUT, MARK), or `sK.}r....` (SETITEM …) for dicts of one tensor.
"""

from __future__ import annotations

import numpy as np

from ..._rolling import Bytes, Numbers, rolling, uint32

# The kinds of gaps: anything else; the name is text; it is in a slot; it is in a slot, and each dict has one item.
NONE, TEXT, SLOT, ONE = range(4)
# The bytes before a text, and those of its PUT.
HEADER, PUT = 5, 5
# For opcodes that push an integer: their bytes. For this number of bytes: the bits of the integer.
_WIDTHS, _BITS = np.zeros(256, np.int64), np.array([0, 0, 0xFF, 0xFFFF, 0, 0xFFFFFFFF])
_WIDTHS[[*b"KMJ"]] = 2, 3, 5


def gaps_before(raw: Bytes, function: bytes, starts: Numbers, ends: Numbers, firsts: Numbers, tops: Numbers) -> Numbers:
    """Return the columns from `gaps` on (see `Columns`) for records with these offsets and slots; the first has no gap.

    `function`: the opcode that pushes the function, which is at the end of each gap.
    """
    found = np.zeros((6, len(starts)), np.int64)
    pushed = rolling(raw, len(function))[starts[1:] - len(function)] == np.frombuffer(function, np.uint8)
    stops = starts[1:] - len(function)
    some = np.flatnonzero(pushed.all(axis=1) & (stops - ends[:-1] > 1))
    for read in (_texts, _slots) if function else ():
        at, stop, slot, first = ends[some], stops[some], tops[some], firsts[some + 1]
        fits, *columns = read(raw, at, stop, slot, first)
        found[:, some[fits] + 1] = np.array(columns)[:, fits]
        some = some[~fits]
    return found


def _texts(raw: Bytes, at: Numbers, stop: Numbers, slot: Numbers, first: Numbers) -> tuple[Numbers, ...]:
    split = (raw[at] == b"u"[0]) & (raw[at + 1] == b"("[0])
    text, put = at + 2 * split, stop - PUT
    fits = (raw[text] == b"X"[0]) & (uint32(raw, text + 1) == put - text - HEADER) & (first == slot + 1)
    fits &= (raw[put] == b"r"[0]) & (uint32(raw, put + 1) == slot)
    nothing = np.zeros(len(at), np.int64)
    return fits, nothing + TEXT, text + HEADER, put - text - HEADER, nothing, split, nothing


def _slots(raw: Bytes, at: Numbers, stop: Numbers, slot: Numbers, first: Numbers) -> tuple[Numbers, ...]:
    width = _WIDTHS[raw[at + 1]]
    key, then = uint32(raw, at + 2) & _BITS[width], at + 1 + width
    many, marked = raw[at] == b"u"[0], raw[then + 6] == b"("[0]
    split = (many | (raw[at] == b"s"[0])) & (many == marked) & (width > 0) & (key < 1 << 31)
    split &= (raw[then] == b"}"[0]) & (raw[then + 1] == b"r"[0]) & (uint32(raw, then + 2) == slot)
    at = np.where(split, then + 6 + marked, at)
    short = (raw[at] == b"h"[0]) & (stop - at == 2)
    fits = (short | ((raw[at] == b"j"[0]) & (stop - at == 5))) & (first == slot + split)
    name, nothing = np.where(short, raw[at + 1], uint32(raw, at + 1)), np.zeros(len(at), np.int64)
    return fits, np.where(split & ~marked, ONE, SLOT), nothing, nothing, name, split, key
