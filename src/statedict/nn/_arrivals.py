"""Leaves of files that go straight into the memory of NumPy parameters: bytes move once, all of a file in one batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from statedict.state import Leaf, Read

from ._variable import raw

# What is remembered while a file is read into a model: a file that changes after it was verified leaves a small model as
# it was, and a large one with a note of what is torn. A copy of everything would double the memory.
BACKUP = 64 << 20


class Arrival(NamedTuple):
    """A leaf, and the array whose memory it fills."""

    leaf: Leaf
    array: np.ndarray[Any, Any]


def arrivals(slots: Iterable[tuple[int, Any, Any]]) -> dict[int, Arrival]:
    """Of (index, what is registered, value) those whose bytes can be read as they are: dense, of one dtype, by index."""
    return {index: Arrival(value, raw(current)) for index, current, value in slots if _is_plain(raw(current), value)}


def arrive(given: Iterable[Arrival], *, verify: bool) -> None:
    """Fill the arrays. Checksums are settled first; where reading fails all the same, small arrays are put back."""
    by_source: dict[int, list[Arrival]] = {}
    for arrival in given:
        by_source.setdefault(id(arrival.leaf.storage.source), []).append(arrival)
    batches = list(by_source.values())
    for batch in batches if verify else ():
        batch[0].leaf.storage.source.verify([arrival.leaf.storage for arrival in batch])
    arrays = [arrival.array for batch in batches for arrival in batch]
    torn = sum(array.nbytes for array in arrays) > BACKUP
    before = [] if torn else [array.copy() for array in arrays]
    try:
        for batch in batches:
            batch[0].leaf.storage.source.read_into([_read(arrival) for arrival in batch])
    except BaseException as error:
        for array, elements in zip(arrays, before):
            array[...] = elements
        if torn:
            error.add_note(f"{len(arrays)} arrays of the model were being overwritten and hold torn values.")
        raise


def _is_plain(array: Any, value: Any) -> bool:
    if not isinstance(value, Leaf) or type(array) is not np.ndarray or not array.size:
        return False
    same = value.spec.is_contiguous and value.spec.dtype.numpy == array.dtype
    return same and array.flags.c_contiguous and array.flags.writeable and not (value.traits.conj or value.traits.neg)


def _read(arrival: Arrival) -> Read:
    spec = arrival.leaf.spec
    into = arrival.array.reshape(-1).view(np.uint8).data
    return Read(arrival.leaf.storage, spec.offset * spec.dtype.itemsize, into)
