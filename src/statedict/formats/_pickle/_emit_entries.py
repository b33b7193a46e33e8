"""The entries of mappings: names and what they stand for, written a thousand at a time where all are plain tensors.

*Theory of operation.* The records of tensors that were not written before differ in nothing but two texts (the name and the
storage's key), their slots in the memo, and a few constants for each spec. So all records are joined from columns of
constants and texts, with the slots left open, and these are filled in at once: slots count up from record to record, and
where they belong is a sum of lengths. A tensor takes 0.7 µs so, and 3 µs where each is written by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from statedict.state import Compound, Leaf, Spec, Wholes

from . import _emit_tensors as tensors
from ._writer import Together, Writer, integer

Steps = Iterator[Any]
Entries = Sequence[tuple[Any, Any]]
# So many entries are written one by one, until all that the others refer to is in the memo.
FIRST = 64
# Below this many, columns are no quicker.
FEW = 32
# A tensor's slots after its name's: its key's, the storage's, sizes, strides, hooks, arguments, its own.
MOST_SLOTS = 7


def entries(w: Writer, batch: Entries) -> Steps:
    """The opcodes of keys and values, in turn; yields those that are neither a new name nor a usual tensor."""
    first = 0 if w.prefixes else FIRST
    yield from _one_by_one(w, batch[:first])
    rest = batch[first:]
    if not _together(w, rest):
        yield from _one_by_one(w, rest)


def live(w: Writer, value: Any) -> Leaf | Compound | None:
    """The leaf of a live tensor."""
    library = w.library(value)
    leaf: Leaf | Compound | None = None if library is None else library.leaf(value)
    if isinstance(leaf, Leaf) and leaf.storage.location == "meta":
        _, shape, strides, _ = leaf.spec
        return Compound("meta", leaf.spec.dtype, shape, {}, {"strides": strides}, leaf.traits)
    return leaf


def _one_by_one(w: Writer, batch: Entries) -> Steps:
    for key, item in batch:
        kind = type(item)
        if type(key) is str and (kind is Leaf or kind in w.kinds):
            leaf = item if kind is Leaf else live(w, item)
            if type(leaf) is Leaf and tensors.entry(w, key, item, leaf):
                continue
        yield key
        yield item


class _Form(NamedTuple):
    """What is the same in all records of one spec. Slots that are open are four bytes of anything.

    Attributes:
        middle: what stands between the texts of the name and of the key, with the name's slot.
        end: what follows the key, with the other slots.
        slots: where in `end` they are.
    """

    middle: bytes
    end: bytes
    slots: tuple[int, ...]


def _together(w: Writer, batch: Entries) -> bool:
    """Write entries that are all new names with new tensors, whole and plain; False, and nothing written, otherwise."""
    if w.store_all is None or len(batch) < FEW:
        return False
    names, values = [key for key, _ in batch], [item for _, item in batch]
    library = w.library(values[0])
    if library is None or set(map(type, names)) != {str} or not _are_new(w, names):
        return False
    wholes: Wholes | None = library.wholes(values)
    if wholes is None or any(kind.dtype not in w.prefixes for kind in wholes.kinds):
        return False
    # Where no storage is known, no tensor is.
    first = w.store_all(wholes)
    if first is None:
        return False
    _write(w, names, values, first, wholes)
    w.alive.append(batch)
    return True


def _are_new(w: Writer, names: Sequence[str]) -> bool:
    ids = set(map(id, names))
    return len(ids) == len(names) and w.memo.keys().isdisjoint(ids)


def _write(w: Writer, names: Sequence[str], values: Sequence[Any], first: int, wholes: Wholes) -> None:
    import numpy as np

    forms = [w.forms.get(kind) or _form(w, kind) for kind in wholes.kinds]
    slots_of = np.full((len(forms), MOST_SLOTS), -1)
    for number, form in enumerate(forms):
        slots_of[number, : len(form.slots)] = form.slots
    open_slots = slots_of[wholes.which]
    counts = 1 + (open_slots >= 0).sum(axis=1)
    firsts = w.count + np.cumsum(counts) - counts

    text, ends_of_names, ends_of_keys = _joined(names, range(first, first + len(names)), wholes.of_each(forms))
    at = np.column_stack((ends_of_names + 1, np.where(open_slots >= 0, ends_of_keys[:, None] + open_slots, -1)))
    slots = (firsts[:, None] + np.arange(1 + MOST_SLOTS)).astype("<u4")
    raw = np.frombuffer(text, np.uint8)
    words = np.lib.stride_tricks.as_strided(raw, (len(raw) - 3, 4), (1, 1))
    words[at[at >= 0]] = slots[at >= 0].view(np.uint8).reshape(-1, 4)

    w.out += text
    w.count += int(counts.sum())
    w.memo.update(zip(map(id, names), firsts.tolist()))
    w.together.append(Together(first, values, wholes, firsts + 1, firsts + counts - 1))


def _joined(names: Sequence[str], keys: Iterable[int], forms: Sequence[_Form]) -> tuple[bytearray, Any, Any]:
    """All records, their slots open; where in them the names end, and the keys."""
    import numpy as np

    count = len(names)
    raw_names = [name.encode("utf-8", "surrogatepass") for name in names]
    raw_keys = [b"%d" % key for key in keys]
    middles, ends = [form.middle for form in forms], [form.end for form in forms]
    of_names, of_middles, of_keys, of_ends = (
        np.fromiter(map(len, column), np.int64, count) for column in (raw_names, middles, raw_keys, ends)
    )
    pieces: list[bytes] = [b""] * (6 * count)
    pieces[0::6], pieces[1::6], pieces[2::6] = _text_heads(of_names), raw_names, middles
    pieces[3::6], pieces[4::6], pieces[5::6] = _text_heads(of_keys), raw_keys, ends
    lengths = of_names + of_middles + of_keys + of_ends + 10
    ends_of_names = np.cumsum(lengths) - lengths + 5 + of_names
    return bytearray().join(pieces), ends_of_names, ends_of_names + of_middles + 5 + of_keys


def _text_heads(lengths: Any) -> list[bytes]:
    """The opcode of a text, and its length."""
    import numpy as np

    heads = np.zeros(len(lengths), [("opcode", "u1"), ("length", "<u4")])
    heads["opcode"], heads["length"] = ord("X"), lengths
    found: list[bytes] = heads.view("V5").tolist()
    return found


def _form(w: Writer, spec: Spec) -> _Form:
    """The parts of the record that `_emit_tensors` writes from its own parts."""
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
    before = sum(map(len, parts)) + len(tail)
    parts.append(tail)
    slots += [before - 4 - back for back in tensors.TAIL_SLOTS]
    form = w.forms[spec] = _Form(OPEN + w.prefixes[spec.dtype], b"".join(parts), tuple(slots))
    return form


# A PUT into a slot that is filled in later.
OPEN = b"r" + bytes(4)
