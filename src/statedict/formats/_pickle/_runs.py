"""The records of a whole state dict, a batch at a time: matched in one call, then checked in columns.

What `_fast` checks of one record is checked here of thousands, so that no line of Python runs for each. Every check must
hold for all; where one fails nothing was done, batches are given up for this pickle, and the records are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, chain
from operator import gt
from typing import Any, NamedTuple

from statedict.errors import FormatError
from statedict.state import Leaf, Spec, Storage

from ._machine import Machine
from ._record import EARLY, TRAITS, are_hooks, location_of, number_of, puts, run, shape_of, slot, storage_kind, uint32
from ._values import Columns, TypedStorage

# Bytes that are matched at once: some 2,000 records, of which a few MB of tokens are held.
BATCH = 256 << 10
Tokens = tuple[bytes, ...]


def read_run(m: Machine, at: int) -> int:
    """Push the names and leaves of the usual records that follow `at`, as far as their slots' opcodes are alike; gives where
    to go on."""
    early = m.top < EARLY
    while m.seen.batches and (m.top < EARLY) is early:
        rows = run(early).findall(m.data, at, min(m.size, at + BATCH))
        if rows and not rows[-1][0]:
            rows.pop()  # The rest of the batch, which is no record, or only the beginning of one.
        if not rows:
            return at
        stop = _read_batch(m, at, list(zip(*rows)))
        m.seen.batches = stop > at
        at = max(at, stop)
    return at


def _read_batch(m: Machine, at: int, columns: list[Tokens]) -> int:
    """Where the batch that begins at `at` ends; 0 where a check fails."""
    wholes, lengths, names, put0, tokens, kinds, keylengths, keys, *rest = columns
    put1, places, numels, put2, offsets, sizes, put3, strides, put4, flags, hooks, put5, put6, put7 = rest
    found = b"".join(chain.from_iterable(zip(put0, put1, put2, put3, put4, put5, put6, put7)))
    if (
        found != puts(m.top < EARLY, m.top, len(found))
        or b"".join(lengths) != uint32(map(len, names))
        or b"".join(keylengths) != bytes(map(len, keys))
        or max(map(len, names)) > m.limits.string_bytes
        or not all(slot(m, token) is m.rebuild for token in set(tokens))
        or not all(are_hooks(m, token) for token in set(hooks))
    ):
        return 0
    storages = _storages(m, kinds, keys, places, numels)
    specs = storages and _specs(m, list(zip(kinds, offsets, sizes, strides)))
    text = decoded(names)
    if storages is None or specs is None or text is None or any(map(gt, specs[1], storages.nbytes)):
        return 0
    leaves = list(map(Leaf, specs[0], storages.storages, [TRAITS[flag] for flag in flags]))
    m.stack += chain.from_iterable(zip(text, leaves))
    # A record sets its name's slot, then five, and two more where it has sizes and strides.
    slots = list(accumulate((8 if size else 6 for size in sizes), initial=m.top))
    starts = list(accumulate(map(len, wholes), initial=at))
    m.top, stop = slots.pop(), starts.pop()
    m.seen.add(slots, starts, text)
    # A tied tensor asks for the leaf again.
    m.memo.update(zip([slot - 1 for slot in [*slots[1:], m.top]], leaves))
    return stop


class _Found(NamedTuple):
    """The storages of the records, and how many bytes of each its record claims."""

    storages: list[Storage]
    nbytes: list[int]


def _storages(m: Machine, kinds: Tokens, keys: Tokens, places: Tokens, numels: Tokens) -> _Found | None:
    dtypes = {token: storage_kind(m, token) for token in set(kinds)}
    locations = {token: location_of(m, token) for token in set(places)}
    counts = {token: number_of(m, token) for token in set(numels)}
    if not (all(dtypes.values()) and all(locations.values())) or min(counts.values()) < 0:
        return None
    wanted = Columns(
        [dtypes[token] for token in kinds],  # type: ignore[misc]  # none of them is None
        b"\0".join(keys).decode("ascii").split("\0"),
        [locations[token] for token in places],  # type: ignore[misc]
        [counts[token] for token in numels],
    )
    try:
        found = m.storages(wanted) if m.storages else _one_by_one(m, wanted)
    except FormatError:
        return None
    nbytes = [count * of.itemsize for count, of in zip(wanted.counts, wanted.dtypes)]
    return None if found is None else _Found(found, nbytes)


def _one_by_one(m: Machine, wanted: Columns) -> list[Storage] | None:
    typed = [m.storage(each) for each in wanted.ids()]
    fits = all(type(each) is TypedStorage and each.dtype is of for each, of in zip(typed, wanted.dtypes))
    return [each.storage for each in typed] if fits else None


def _specs(m: Machine, shapes: list[tuple[bytes, bytes, bytes, bytes]]) -> tuple[list[Spec], list[int]]:
    """The Spec of each record, and the bytes of storage that it needs."""
    known: dict[Any, tuple[Spec, int]] = {}
    for shape in set(shapes):
        known[shape] = m.seen.shapes.get(shape) or shape_of(m, m.seen.kinds[shape[0]], shape)
    found = [known[shape] for shape in shapes]
    return [spec for spec, _ in found], [needed for _, needed in found]


def decoded(names: Iterable[bytes]) -> list[str] | None:
    """The names as text; None where they are not that, or one could be taken for a location.

    No name has a control character in it, so a zero byte can stand between two.
    """
    try:
        text = b"\0".join(names).decode("utf-8", "surrogatepass").split("\0")
    except UnicodeDecodeError:
        return None
    return None if "cpu" in text else text
