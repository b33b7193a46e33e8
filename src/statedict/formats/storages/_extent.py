"""Extent: the byte range of a storage in a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from statedict.state import Storage


class Extent(NamedTuple):
    """The position of a storage in a file: the `where` of its Storage.

    Attributes:
        offset: its first byte in the file.
        nbytes: its length there, at least that of the storage, because the checksum is of the whole extent.
        member: its name in the file, for messages.
        crc: the expected CRC-32 of its bytes (after `inflate`, if that is given); None if unknown.
        itemsize: the bytes of an element, to which mapped memory must be aligned.
        swap: the length of the groups in which bytes are in reverse order; 1 if they are in this machine's order.
        inflate: returns all its bytes, if they are compressed in the file.
        skip: the number of its bytes before the first byte of the storage.
        twins: where the same bytes should be again, for names that are tied to this one.
    """

    offset: int
    nbytes: int
    member: str
    crc: int | None = None
    itemsize: int = 1
    swap: int = 1
    inflate: Callable[[], bytes] | None = None
    skip: int = 0
    twins: tuple[Extent, ...] = ()


def offset_of(storage: Storage, start: int) -> int:
    """Return the offset of byte `start` of the storage in the file."""
    extent: Extent = storage.where
    return extent.offset + extent.skip + start


def is_computed(storage: Storage) -> bool:
    """Return whether the storage's bytes must be computed from those in the file: inflated, or reversed."""
    extent: Extent = storage.where
    return extent.inflate is not None or extent.swap > 1


def swapped(data: bytes | memoryview, unit: int) -> bytes:
    """Return the bytes with each run of `unit` bytes reversed."""
    if unit == 1:
        return bytes(data)
    made = bytearray(data)
    for place in range(unit):
        made[place::unit] = data[unit - 1 - place :: unit]
    return bytes(made)
