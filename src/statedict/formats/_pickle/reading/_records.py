"""The usual tensor, read in one step.

`torch.save` writes the call of `_rebuild_tensor_v2` always in the same thirty opcodes; one at a time they cost 15 µs a
tensor. One regular expression matches all of them (they are prefix codes: what matches is what the machine would
execute), and the same checks give the same leaf for 4 µs. Thousands in a row are read with arrays (`_stretch`). Whatever is
not exactly usual, or fails a check, is left to the machine, which says what is wrong.

The memo slots inside a record hold temporaries that no pickler refers to again. They are filled only if somebody asks
(`unfold`), which is possible because this path is taken only while slots are used in order, each once.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import OrderedDict
from typing import Any

from statedict.errors import FormatError
from statedict.state import Leaf

from .._values import StorageId, TypedStorage
from ._machine import OFF, Machine
from ._record import (
    EARLY,
    TRAITS,
    are_hooks,
    integer,
    integers,
    location_of,
    number_of,
    puts,
    record,
    shape_of,
    slot,
    storage_kind,
)
from ._seen import Seen

_new = tuple.__new__
# From so many bytes on arrays are worth it even if NumPy has to be imported first (0.1 s): some 10,000 records.
IMPORTED = 1 << 20


def read_records(m: Machine, at: int) -> int:
    """Read the record whose function was just pushed, and the names and records that follow it, where there are thousands.

    Its leaf takes the function's place. Gives where to go on, or `at` where the record is not usual.
    """
    leaf, stop = _read(m, at)
    if leaf is None:
        return at
    m.stack[-1] = leaf
    # With arrays, if NumPy is there or there is enough to read that it is worth importing.
    if m.rows is None or not ("numpy" in sys.modules or m.size - stop > IMPORTED):
        return stop
    from ._stretch import read_stretch

    return read_stretch(m, stop)


def _read(m: Machine, at: int) -> tuple[Leaf | None, int]:
    """The leaf of the record at `at`, its slots set, and the offset after it; None where it is not usual."""
    seen, top = m.seen, m.top
    found = record(top < EARLY).match(m.data, at, m.size)
    if found is None:
        return None, at
    kind, length, key, put1, place, numel, put2, offset, size, put3, stride, put4, flag, hooks, put5, put6, put7 = (
        found.groups(b"")
    )
    numbers = put1 + put2 + put3 + put4 + put5 + put6 + put7
    usual = numbers == puts(top < EARLY, top, len(numbers))
    dtype = seen.kinds.get(kind) or storage_kind(m, kind)
    location = seen.locations.get(place) or location_of(m, place)
    if not (usual and dtype and location and length[0] == len(key) and (hooks in seen.hooks or are_hooks(m, hooks))):
        return None, at
    shape = (kind, offset, size, stride)
    spec, needed = seen.shapes.get(shape) or shape_of(m, dtype, shape)
    name, count = key.decode(), seen.numbers.get(numel) or number_of(m, numel)
    if count < 0:
        return None, at
    try:
        typed = m.storage(_new(StorageId, (dtype, name, location, count, None)))
    except FormatError:
        return None, at
    if type(typed) is not TypedStorage or needed > typed.nbytes or typed.dtype is not dtype:
        return None, at
    m.top = top + (7 if size else 5)
    leaf = m.memo[m.top - 1] = Leaf.unchecked(spec, typed.storage, TRAITS[flag])
    seen.add((top,), (at,), (None,))
    return leaf, found.end()


# the slots inside a record


def unfold(m: Machine, index: int) -> bool:
    """Fill the slots of the record that slot `index` belongs to, if there is one."""
    place = bisect_right(m.seen.firsts, index) - 1
    if place < 0:
        return False
    first = m.seen.firsts[place]
    values = _slots(m, place)
    for number, value in enumerate(values, first):
        m.memo.setdefault(number, value)
    return index < first + len(values)


def unfold_all(m: Machine) -> None:
    """Fill the slots of all records, and leave the rest of the pickle to the machine."""
    if m.seen.firsts:
        for first in m.seen.firsts:
            unfold(m, first)
        m.seen = Seen()
    m.rebuild, m.top = OFF, -1


def _slots(m: Machine, index: int) -> list[Any]:
    """What the machine would have put into a record's slots before that of its leaf: its name, if it has one; key, storage
    id, size, stride, hooks, arguments."""
    at, of, early = m.seen.places[index], m.seen.names[index], m.seen.firsts[index] < EARLY
    if of is not None:
        # After the text, its PUT, and the function's GET.
        at += (7 if early else 10) + int.from_bytes(m.data[at + 1 : at + 5], "little")
        at += 2 if m.data[at : at + 1] == b"h" else 5
    found = record(early).match(m.data, at, m.size)
    assert found is not None
    kind, _, key, _, place, numel, _, offset, size, _, stride, _, flag, *_ = found.groups(b"")
    split = 2 if kind[:1] == b"h" else 5
    dtype, location, name = m.seen.kinds[kind], m.seen.locations[place], key.decode()
    pid = (slot(m, kind[:split]), slot(m, kind[split:]), name, location, integer(numel))
    last = m.seen.firsts[index] + (of is not None) + (6 if size else 4)
    typed = TypedStorage(m.memo[last].storage, dtype, integer(numel))
    sizes, strides = integers(size), integers(stride)
    hooks: OrderedDict[Any, Any] = OrderedDict()
    args = (typed, integer(offset), sizes, strides, flag == b"\x88", hooks)
    temporaries = [name, pid, *([sizes, strides] if size else []), hooks, args]
    return temporaries if of is None else [of, *temporaries]
