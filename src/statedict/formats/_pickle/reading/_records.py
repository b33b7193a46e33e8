"""Read a usual tensor of a pickle in one step instead of thirty opcodes.

`torch.save` writes a tensor as a call of `_rebuild_tensor_v2`, always with the same thirty opcodes: a *record*. The machine
takes 15 µs for them. There are two faster ways, with the checks of the machine and the same results:

1. One regular expression matches the record, and its fields are looked up (`_read`): 4 µs. The opcodes are prefix codes, so
   a match is what the machine would execute.
2. `_record_columns.scan_ahead` searches the next part of the pickle for all offsets where a record can begin, and decodes
   the records with arrays: 1 µs. A scan changes nothing. When the machine arrives at such an offset, and the next memo slot
   is the one that the record sets, the result is used (`Scan.use`); records with only a usual gap between them are a *run*,
   and used together.

Everything else, and every record that fails a check, is left to the machine, which reports what is wrong.

The memo slots inside a record have temporary values that no pickler refers to again. They are filled only if the pickle
reads one (`unfold`). This is possible because records are read only while slots are set in order, each once; otherwise
`unfold_all` ends it.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import OrderedDict
from typing import Any

from statedict.errors import FormatError
from statedict.state import DType, Leaf, Opaque, Spec, Storage, dtype

from .._names import storage_dtype
from .._values import StorageId, TypedStorage
from ._machine import OFF, Machine
from ._record_syntax import EARLY, TRAITS, Seen, integer, integers, puts, record
from ._tensors import NOWHERE, spec_in

_new = tuple.__new__
# While NumPy is not imported yet (0.1 s), arrays are faster only from this many bytes on: some 10,000 records.
IMPORTED = 1 << 20


def read_records(m: Machine, at: int) -> int:
    """Read the record at `at`, whose function was just pushed, and the rest of its run if a scan has found one.

    The leaf replaces the function on the stack. Returns the offset after the record, or `at` if it is not usual.
    """
    scan = m.seen.scan
    if scan is not None and at < scan.stop:
        stop: int = scan.use(m, at)
        if stop != at:
            return stop
    leaf, stop = _read(m, at)
    if leaf is None:
        return at
    m.stack[-1] = leaf
    if m.rows is not None:
        m.rows.single.append(leaf)
        due = scan is None or at >= scan.stop or scan.missed()
        if due and m.top >= EARLY and m.rows.have_rows and _pays(m, stop):
            from ._record_columns import scan_ahead

            m.seen.scan = scan_ahead(m, at, stop)
    return stop


def _pays(m: Machine, at: int) -> bool:
    """Return whether arrays are faster for the rest of the pickle."""
    return "numpy" in sys.modules or m.size - at > IMPORTED


def _read(m: Machine, at: int) -> tuple[Leaf | None, int]:
    """Read one record and set its slots; return its leaf, or None if it is not usual, and the offset after it."""
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


# The meaning of a record's tokens.


def slot(m: Machine, token: bytes) -> Any:
    """Return the value that a GET pushes, or None if its slot is not set."""
    return m.memo.get(token[1] if token[:1] == b"h" else int.from_bytes(token[1:], "little"))


def storage_kind(m: Machine, tokens: bytes) -> DType | None:
    """Return the dtype for two GETs, of `"storage"` and of a storage type."""
    split = 2 if tokens[:1] == b"h" else 5
    kind = slot(m, tokens[split:])
    if slot(m, tokens[:split]) != "storage" or type(kind) is not Opaque or kind.args is not None:
        return None
    try:
        dtype = storage_dtype(kind.module, kind.name)
    except KeyError:
        return None
    if dtype is not None:
        m.seen.kinds[tokens] = dtype
    return dtype


def location_of(m: Machine, token: bytes) -> str | None:
    """Return the device tag that a GET pushes."""
    found = slot(m, token)
    if type(found) is not str or not found:
        return None
    m.seen.locations[token] = found
    return found


def are_hooks(m: Machine, token: bytes) -> bool:
    """Return whether a GET pushes OrderedDict, which is called for the (empty) hooks."""
    found = slot(m, token)
    if type(found) is not Opaque or found.args is not None or found.path != "collections.OrderedDict":
        return False
    m.seen.hooks.add(token)
    return True


_NONE = Spec(dtype("uint8"), (), ()), 1 << 65


def shape_of(m: Machine, of: DType, key: tuple[bytes, bytes, bytes, bytes]) -> tuple[Spec, int]:
    """Return the Spec and the bytes of storage that it needs; for invalid numbers, more bytes than any storage has."""
    _, offset, size, stride = key
    everything = TypedStorage(_ENDLESS, None, _ENDLESS.nbytes)
    try:
        spec = spec_in(everything, of, integer(offset), integers(size), integers(stride), m.limits)
    except FormatError:
        return _NONE
    found = m.seen.shapes[key] = spec, spec.reach * of.itemsize
    return found


_ENDLESS = Storage(NOWHERE.source, ("endless",), 1 << 64)


def number_of(m: Machine, token: bytes) -> int:
    found = m.seen.numbers[token] = integer(token)
    return found


# The slots inside a record.


def unfold(m: Machine, index: int) -> bool:
    """Fill the slots of the record that slot `index` belongs to; return False if there is none."""
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
    """Return the values of a record's slots before that of its leaf: its name, if it has one, key, storage id, size, stride,
    hooks, arguments."""
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
