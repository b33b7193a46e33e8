"""Read leaves directly into the memory of NumPy parameters: bytes move once, one batch per file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from statedict.state import Leaf, Read, have_room, not_put_back, origins

from ._variable import raw


class Arrival(NamedTuple):
    """A leaf, the array that it is read into, and its name."""

    leaf: Leaf
    array: np.ndarray[Any, Any]
    name: str


def arrivals(slots: Iterable[tuple[int, str, Any, Any]]) -> dict[int, Arrival]:
    """Return those of (index, name, registered, value) whose bytes can be read without conversion, by index."""
    return {i: Arrival(value, raw(now), name) for i, name, now, value in slots if _is_plain(raw(now), value)}


def arrive(given: Iterable[Arrival], *, verify: bool) -> None:
    """Fill the arrays. If reading fails, all are restored, if there was enough memory for a backup of all of them.

    Otherwise checksums are verified first, and arrays are backed up and filled one by one; those filled before the failure
    keep the new values.
    """
    batches = _by_source(given)
    everything = [arrival for batch in batches for arrival in batch]
    together = have_room(sum(arrival.array.nbytes for arrival in everything))
    if not together:
        for batch in batches if verify else ():
            batch[0].leaf.storage.source.verify([arrival.leaf.storage for arrival in batch])
        batches = [[arrival] for arrival in everything]
    kept = _copies(everything) if together else []
    filled: list[str] = []
    for batch in batches:
        if not together:
            kept = _copies(batch) if have_room(batch[0].array.nbytes) else []
        try:
            batch[0].leaf.storage.source.read_into(list(map(_read, batch)), verify=verify and together)
        except BaseException as error:
            for array, elements in kept:
                array[...] = elements
            changed = filled if kept else [*filled, *(arrival.name for arrival in batch)]
            if changed and not together:
                error.add_note(not_put_back(changed))
            raise
        filled += [arrival.name for arrival in batch]


def _copies(given: Iterable[Arrival]) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Return each array with a copy of it."""
    return [(arrival.array, arrival.array.copy()) for arrival in given]


def _by_source(given: Iterable[Arrival]) -> list[list[Arrival]]:
    groups: dict[int, list[Arrival]] = {}
    for arrival in given:
        groups.setdefault(id(arrival.leaf.storage.source), []).append(arrival)
    return list(groups.values())


def _is_plain(array: Any, value: Any) -> bool:
    if not isinstance(value, Leaf) or type(array) is not np.ndarray or not array.size or _is_live(value):
        return False
    same = value.spec.is_contiguous and value.spec.dtype.numpy == array.dtype
    return same and array.flags.c_contiguous and array.flags.writeable and not (value.traits.conj or value.traits.neg)


def _is_live(leaf: Leaf) -> bool:
    """Return whether a leaf is read from memory, which may be that of an array that is filled before."""
    return any(origin.storage.is_live for origin in origins(leaf))


def _read(arrival: Arrival) -> Read:
    spec = arrival.leaf.spec
    into = arrival.array.reshape(-1).view(np.uint8).data
    return Read(arrival.leaf.storage, spec.offset * spec.dtype.itemsize, into)
