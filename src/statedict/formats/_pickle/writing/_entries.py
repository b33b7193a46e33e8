"""Write the entries of mappings: a thousand at a time if all values are plain tensors.

*Theory of operation.* The records of new tensors differ only in two texts (the name and the storage key), their memo
slots, and a few constants per spec. So the records of one form are rows of one table of bytes: the constant bytes are
filled in once, keys and slots are columns, and slots increase from record to record. Names vary in length and are
inserted between the rows. This takes about a quarter of the time of single records ("Saving many small tensors" in
docs/performance.md).

An optimizer keeps a small dict of tensors for each parameter, and thousands of these dicts have the same keys: the
bytes between two of their tensors are constant except for the number of the parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

from statedict.state import Compound, Leaf, RowKind, Table, leaf_of, library_of

from . import _tensors as tensors
from ._memo import SMALL, PickleWriter, Together, get, integer

Steps = Iterator[Any]
Entries = Sequence[tuple[Any, Any]]
# This many entries are written one by one, until everything that the others refer to is in the memo.
FIRST = 64
# For fewer entries, columns are not faster.
FEW = 32


def entries(w: PickleWriter, batch: Entries) -> Steps:
    """Write keys and values in turn; yield the values that are not ordinary tensors under new names."""
    first = 0 if w.prefixes and w.count >= tensors.SHORT else FIRST
    yield from _one_by_one(w, batch[:first])
    rest = batch[first:]
    if len(rest) < FEW:
        yield from _one_by_one(w, rest)
    elif not _together(w, rest):
        for fits, run in groupby(rest, lambda entry: type(entry[1]) is dict or w.library(entry[1]) is not None):
            yield from (_in_runs if fits else _one_by_one)(w, [*run])


def _in_runs(w: PickleWriter, batch: Entries) -> Steps:
    """Write as many entries together as possible; find the exceptions by bisection, because they are rare."""
    if len(batch) < FEW:
        yield from _one_by_one(w, batch)
    elif not _together(w, batch):
        half = len(batch) // 2
        yield from _in_runs(w, batch[:half])
        yield from _in_runs(w, batch[half:])


def live(w: PickleWriter, value: Any) -> Leaf | Compound | None:
    """Return the leaf of a live tensor; None for one that wraps others, which is written as its class says."""
    kind = type(value)
    library = w.kinds.get(kind) or w.library(value)
    leaf: Leaf | Compound | None = None if library is None else library.leaf(value)
    if hasattr(kind, "__tensor_flatten__") and not isinstance(leaf, Leaf):
        return None
    if isinstance(leaf, Leaf) and leaf.storage.location == "meta":
        _, shape, strides, _ = leaf.spec
        return Compound("meta", leaf.spec.dtype, shape, {}, {"strides": strides}, leaf.traits)
    return leaf


def _one_by_one(w: PickleWriter, batch: Entries) -> Steps:
    for key, item in batch:
        kind = type(item)
        if w.prefixes and type(key) is str and (kind is Leaf or w.kinds.get(kind) is not None):
            leaf = item if kind is Leaf else live(w, item)
            if type(leaf) is Leaf and tensors.entry(w, key, item, leaf):
                continue
        w.unusual |= type(key) is not str and not _is_small(key)
        yield from w.others((key, item))


def _is_small(key: Any) -> bool:
    return type(key) is int and -SMALL < key < SMALL


def as_tensors(value: Mapping[Any, Any]) -> Iterable[tuple[Any, Any]]:
    """Return the entries with NumPy arrays as leaves; arrays that no tensor can have (text, records) stay as they are."""
    arrays = kinds_of_arrays(value.values())
    return [(name, (type(item) in arrays and leaf_of(item)) or item) for name, item in value.items()]


def kinds_of_arrays(values: Iterable[Any]) -> set[type]:
    """Return the types of NumPy arrays among the values. Only one value of each type is tested: there may be many
    thousands.
    """
    return {
        kind
        for kind, value in {type(value): value for value in values}.items()
        if getattr(library_of(value), "name", None) == "numpy"
    }


class _Rows(NamedTuple):
    """Tensors to be written together, and the bytes before each.

    Attributes:
        values: the tensors.
        names: the opcodes that begin each entry: a new name, or the number of a parameter.
        befores: the opcodes before the first tensor, the second … of each entry. The first one has an open slot.
        after: the opcodes that end an entry.
        memoized: the names, or the dicts, that get these slots.
    """

    values: list[Any]
    names: list[bytes]
    befores: list[bytes]
    after: bytes
    memoized: Sequence[Any]


def _together(w: PickleWriter, batch: Entries) -> bool:
    """Write entries if all are new names with new, whole, plain tensors, or numbers with new dicts of these; otherwise
    write nothing and return False.
    """
    if w.store_all is None:
        return False
    rows = _rows(w, [key for key, _ in batch], [item for _, item in batch])
    library = None if rows is None else w.library(rows.values[0])
    if rows is None or library is None or not _are_new(w, rows.memoized):
        return False
    table: Table | None = library.table(rows.values)
    if table is None or not all(_is_known(w, kind) for kind in table.kinds):
        return False
    # If no storage is known, no tensor is either.
    first = w.store_all(table)
    if first is None:
        return False
    _write(w, rows, first, table)
    w.alive.append(batch)
    return True


def _rows(w: PickleWriter, keys: list[Any], values: list[Any]) -> _Rows | None:
    kinds = set(map(type, keys))
    if kinds == {str} and w.library(values[0]) is not None:
        return _Rows(values, [key.encode("utf-8", "surrogatepass") for key in keys], [OPEN], b"", keys)
    if kinds != {int} or set(map(type, values)) != {dict}:
        return None
    w.unusual |= not -SMALL < min(keys) <= max(keys) < SMALL
    # The keys of a dict are compared by identity, as pickle does.
    inner = [*values[0]]
    if not inner or any(list(map(id, value)) != list(map(id, inner)) for value in values):
        return None
    slots = [w.memo.get(id(name)) for name in inner]
    befores = [get(slot) for slot in slots if slot is not None]
    if len(befores) < len(inner):
        return None
    many = len(inner) > 1
    befores[0] = b"}" + OPEN + (b"(" if many else b"") + befores[0]
    numbers = [b""] * (len(inner) * len(keys))
    numbers[:: len(inner)] = map(integer, keys)
    found = list(chain.from_iterable(map(dict.values, values)))
    return _Rows(found, numbers, befores, b"u" if many else b"s", values)


def _are_new(w: PickleWriter, values: Sequence[Any]) -> bool:
    ids = set(map(id, values))
    return len(ids) == len(values) and w.memo.keys().isdisjoint(ids)


def _is_known(w: PickleWriter, kind: RowKind) -> bool:
    """Return whether everything that the record of such a tensor refers to is in the memo."""
    return kind.spec.dtype in w.prefixes and (not kind.traits.parameter or PARAMETER in w.named)


def _write(w: PickleWriter, rows: _Rows, first: int, table: Table) -> None:
    import numpy as np

    count, period = len(rows.values), len(rows.befores)
    forms = [
        _form(w, kind, before, rows.after if number == period - 1 else b"", opens=not number)
        for kind in table.kinds
        for number, before in enumerate(rows.befores)
    ]
    which = np.array(table.which) * period + np.arange(count) % period
    slots_before = np.array([form.opens for form in forms])[which]
    counts = slots_before + np.array([len(form.slots) for form in forms])[which]
    firsts = w.count + np.cumsum(counts) - counts
    records = _records(forms, which, np.arange(first, first + count), firsts)
    if period == 1 and not rows.after:
        pieces: list[bytes] = [b""] * (3 * count)
        pieces[0::3], pieces[1::3], pieces[2::3] = _text_heads(list(map(len, rows.names))), rows.names, records
    else:
        pieces = list(chain.from_iterable(zip(rows.names, records)))
    w.out += b"".join(pieces)
    w.count += int(counts.sum())
    w.memo.update(zip(map(id, rows.memoized), firsts[::period].tolist()))
    w.together.append(Together(first, rows.values, table, firsts + slots_before, firsts + counts - 1))


def _records(forms: Sequence[_Form], which: Any, keys: Any, firsts: Any) -> list[bytes]:
    """Return the bytes that follow the name in each record."""
    import numpy as np

    digits = 1 + np.searchsorted(10 ** np.arange(1, 19), keys, "right")
    found: list[bytes] = [b""] * len(keys)
    for number, length in sorted(set(zip(which.tolist(), digits.tolist()))):
        of_form = np.flatnonzero((which == number) & (digits == length))
        made = _table(forms[number], int(length), keys[of_form], firsts[of_form])
        if len(made) == len(found):
            return made
        for row, record in zip(of_form.tolist(), made):
            found[row] = record
    return found


def _table(form: _Form, length: int, keys: Any, firsts: Any) -> list[bytes]:
    """Return the records of one form whose keys have `length` digits."""
    import numpy as np

    head = form.before + tensors.text_head(length)
    constant = np.frombuffer(head + bytes(length) + form.end, np.uint8)
    table = np.empty((len(keys), len(constant)), np.uint8)
    table[:] = constant
    table[:, len(head) : len(head) + length] = ord("0") + keys[:, None] // 10 ** np.arange(length)[::-1] % 10
    places = [len(head) + length + slot for slot in form.slots]
    if form.opens:
        places.insert(0, head.index(OPEN) + 1)
    for number, place in enumerate(places):
        table[:, place : place + 4] = (firsts + number).astype("<u4").view(np.uint8).reshape(-1, 4)
    records: list[bytes] = table.view(f"V{len(constant)}").ravel().tolist()
    return records


def _text_heads(lengths: Any) -> list[bytes]:
    """Return the opcode of a text with its length."""
    import numpy as np

    heads = np.zeros(len(lengths), [("opcode", "u1"), ("length", "<u4")])
    heads["opcode"], heads["length"] = ord("X"), lengths
    found: list[bytes] = heads.view("V5").tolist()
    return found


class _Form(NamedTuple):
    """The constant bytes of all records of one form. Open slots are four placeholder bytes.

    Attributes:
        before: the opcodes between the name and the text of the key.
        opens: whether its first slot, of the name or the dict, is open.
        end: the opcodes after the key.
        slots: the positions of open slots in `end`.
    """

    before: bytes
    opens: bool
    end: bytes
    slots: tuple[int, ...]


def _form(w: PickleWriter, kind: RowKind, before: bytes, after: bytes, *, opens: bool) -> _Form:
    """Return the form of the record that `_tensors` writes from its parts."""
    spec, traits, _ = kind
    parts: list[bytes] = []
    slots: list[int] = []

    def put(opcodes: bytes = b"") -> None:
        slots.append(sum(map(len, parts)) + len(opcodes) + 1)
        parts.append(opcodes + OPEN)

    sizes, strides = tensors.sizes_of(w, spec)
    tail = w.tail(0)
    put()
    put(w.cpu + integer(spec.numel) + b"t")
    for numbers in (sizes, strides):
        if spec.shape:
            put(numbers)
        else:
            parts.append(numbers)
    end = sum(map(len, parts)) + len(tail)
    parts.append(tail)
    slots += [end - 4 - back for back in tensors.TAIL_SLOTS]
    if traits.parameter:
        before += get(w.named[PARAMETER])
        put((b"\x88" if traits.requires_grad else b"\x89") + get(w.named["collections", "OrderedDict"]) + b")R")
        put(b"\x87")
        put(b"R")
    return _Form(before + w.prefixes[spec.dtype], opens, b"".join(parts) + after, tuple(slots))


# A PUT into a slot that is filled in later.
OPEN = b"r" + bytes(4)
PARAMETER = "torch._utils", "_rebuild_parameter"
