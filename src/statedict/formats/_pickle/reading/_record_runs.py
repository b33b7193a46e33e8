"""Use the records that a scan has found, when the machine reaches them: a whole run at once if every record is usual."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain, compress, repeat
from typing import Any, NamedTuple

from statedict.errors import FormatError
from statedict.state import Leaf

from ._containers import HANDLERS
from ._machine import Machine
from ._record_gaps import HEADER, ONE, TEXT
from ._records import unfold

_CONTROL = re.compile(rb"[\0-\x1f]")


class Columns(NamedTuple):
    """Facts about each record, column-wise.

    Attributes:
        rows: its number among those offered (-1: not offered).
        firsts, slots: its first slot, and that of its leaf.
        ends: the offset after it.
        lasts: the index after the last record of its run.
        starts: the offset of its MARKs.
        gaps: the kind of what is between it and the record before. All that follows is about this.
        texts, lengths: where the text of its name begins, and its length.
        names: the slot with its name.
        split: whether a dict ends there, or 1,000 items of it.
        keys: the key of the next dict.
    """

    rows: list[int]
    firsts: list[int]
    ends: list[int]
    slots: list[int]
    lasts: list[int]
    starts: list[int]
    gaps: list[int]
    texts: list[int]
    lengths: list[int]
    names: list[int]
    split: list[int]
    keys: list[int]


class Scan:
    """The records between two offsets of a pickle, column-wise. Records with a usual gap between them are a run.

    Attributes:
        stop: the end of the window.
        patience: after this many records that it has not found, the window is scanned again.
        function: the opcode that pushes the function.
        numbers: the index of each record in the columns, by its offset.
    """

    def __init__(self, stop: int, patience: int) -> None:
        self.stop = stop
        self.patience = patience
        self.misses = 0
        self.function = b""
        self.numbers: dict[int, int] = {}
        self.columns = Columns(*([] for _ in Columns._fields))

    def missed(self) -> bool:
        """Count a record that the scan should have found; return whether to scan again."""
        self.misses += 1
        return self.misses == self.patience

    def use(self, m: Machine, at: int) -> int:
        """Replace the function on the stack by the leaf of the record at `at`, and read the rest of its run.

        Returns the offset after them, or `at` if the scan has not found the record, or it cannot be a row.
        """
        c, number = self.columns, self.numbers.get(at)
        if number is None or c.rows[number] < 0 or c.firsts[number] != m.top or m.rows is None:
            return at
        last = c.lasts[number]
        names = _names(m, c, number + 1, last) if last - number > 1 else []
        leaves = None if names is None else m.rows.claim(c.rows[number], last - number)
        if names is None or leaves is None:
            if last - number == 1:
                return at
            # One of them is not usual, so each is used by itself.
            c.lasts[number:last] = range(number + 1, last + 1)
            return self.use(m, at)
        # Tied tensors refer to the leaf again.
        m.stack[-1] = m.memo[c.slots[number]] = leaves[0]
        m.seen.add((m.top,), (at,), (None,))
        m.top = c.slots[last - 1] + 1
        if names:
            _push(m, c, number + 1, names, leaves[1:])
        return c.ends[last - 1]


def _names(m: Machine, c: Columns, second: int, last: int) -> list[str] | None:
    """Return the names of a run, without that of its first record; None if the machine must read them."""
    gap = c.gaps[second]
    if any(c.split[second:last]) and not (len(m.stack) > 2 if gap == ONE else m.marks and m.marks[-1]):
        return None
    if gap == TEXT:
        return _texts(m, c.texts[second:last], c.lengths[second:last])
    for slot in set(c.names[second:last]).difference(m.memo):
        unfold(m, slot)
    names: list[Any] = list(map(m.memo.get, c.names[second:last]))
    return names if set(map(type, names)) == {str} else None


def _push(m: Machine, c: Columns, second: int, names: list[str], leaves: list[Leaf]) -> None:
    """Push names and leaves. At each split, set the items on the stack in their dict; unless names are text, push a key and
    a new dict."""
    last, gap, begin = second + len(names), c.gaps[second], 0
    if gap == TEXT:
        m.seen.add((slot - 1 for slot in c.firsts[second:last]), (at - HEADER for at in c.texts[second:last]), names)
    else:
        m.seen.add(c.firsts[second:last], c.starts[second:last], repeat(None, len(names)))
    m.memo.update(zip(c.slots[second:last], leaves))
    for split in compress(range(len(names)), c.split[second:last]):
        m.stack += chain.from_iterable(zip(names[begin:split], leaves[begin:split]))
        record, begin = second + split, split
        try:
            HANDLERS[b"s" if gap == ONE else b"u"](m, 0)
        except FormatError as error:
            error.offset = c.ends[record - 1]
            raise
        if gap != TEXT:
            m.stack.append(c.keys[record])
            HANDLERS[b"}"](m, 0)
            m.memo[c.firsts[record] - 1] = m.stack[-1]
        if gap != ONE:
            m.marks.append(m.stack)
            m.stack = []
    m.stack += chain.from_iterable(zip(names[begin:], leaves[begin:]))


def _texts(m: Machine, starts: Sequence[int], lengths: Sequence[int]) -> list[str] | None:
    """Return the names as text; None if the machine must read one, or if one has control characters."""
    if max(lengths) > m.limits.string_bytes:
        return None
    data = m.data
    names = [data[start : start + length] for start, length in zip(starts, lengths)]
    return None if _CONTROL.search(b"".join(names)) else _decoded(names)


def _decoded(names: Iterable[bytes]) -> list[str] | None:
    """Return the names as text; None if one is not valid UTF-8, or could be mistaken for a location.

    Names do not have control characters, so zero bytes can separate them.
    """
    try:
        text = b"\0".join(names).decode("utf-8", "surrogatepass").split("\0")
    except UnicodeDecodeError:
        return None
    return None if "cpu" in text else text
