"""Decide which bytes are written for a tensor: only its elements, while tensors that share bytes still share them.

PyTorch writes the whole storage of a slice. Here a storage is reduced to the elements of its tensors:

- One tensor (or several that are the same view): the range from its first to its last element if it has no gaps, whatever
  the strides; otherwise only its elements, packed in the order of the storage.
- Several different views: the ranges that they cover, joined without the gaps between them.

Expanded dimensions (stride 0) stay expanded, so nothing is written larger than it is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from math import prod
from typing import NamedTuple

from statedict.files import crc32
from statedict.state import IN_PIECES, DType, Leaf, Read, Spec, Storage, Table, memory_of, row_major, single_rows

from ._extent import Extent
from ._shape import require_memory

# Storages that can neither be viewed nor streamed are read in pieces of this size.
PIECE = 4 << 20


class Packed(NamedTuple):
    """One storage of a file that is to be written: its number, its length, and its bytes as views in order.

    `of`: the key of its bytes if they may be distributed over several processes (see `Payload`).
    """

    number: int
    nbytes: int
    views: Callable[[], Iterable[memoryview]]
    of: Hashable = None


class _Place(NamedTuple):
    """A placed storage, and the new spec of its leaves for each old one."""

    packed: Packed
    specs: dict[Spec, Spec]


# A storage's key, and the type of its elements.
Key = tuple[Hashable, DType]


class Packing:
    """Assign leaves to new storages, numbered in the order of their first leaves.

    Each leaf is placed as if it were the only view of its storage. If another view comes, `settled` becomes False, and all
    leaves must be placed again by a Packing that knows them (`again`).
    """

    def __init__(self, known: dict[Key, list[Leaf]] | None = None) -> None:
        self.settled = True
        # Storages in order; a table is as many as it has rows.
        self.packed: list[Packed | Table] = []
        self._known = known or {}
        self._count = 0
        self._seen: dict[Key, list[Leaf]] = {}
        self._places: dict[Key, _Place] = {}
        # By address, which is faster to look up than a key: number and spec of those from tables, and all others.
        self._rows: dict[int, tuple[int, Spec]] = {}
        self._single: dict[int, object] = {_address(storage): None for storage, _ in self._known}

    def again(self) -> Packing:
        """Return a Packing that knows all leaves that this one has placed."""
        return Packing(self._seen)

    def place(self, leaf: Leaf) -> tuple[Packed, Spec]:
        """Return the new storage of the leaf, and its spec there."""
        # Other readers take a storage's element type from its first mention, so one storage has one type.
        key = leaf.storage.key, leaf.spec.dtype
        place = self._places.get(key)
        if place is None:
            place = self._first(key, leaf)
        spec = place.specs.get(leaf.spec)
        if spec is None:
            require_memory(leaf)
            self.settled = False
            self._seen[key].append(leaf)
            spec = leaf.spec
        return place.packed, spec

    def place_all(self, table: Table) -> int | None:
        """Return the number of the first row's new storage; the others follow. None if one of them shares its storage, so
        that each must be placed by itself."""
        specs = table.of_each(lambda kind: kind.spec)
        new = dict(zip(table.starts, zip(count(self._count), specs)))
        # `isdisjoint` of two views of keys iterates over the shorter one; with a dict it would iterate over the dict.
        if len(new) < len(specs) or not all(
            new.keys().isdisjoint(known.keys()) for known in (self._single, self._rows)
        ):
            return None
        first = self._count
        self.packed.append(table)
        self._count += len(specs)
        self._rows |= new
        return first

    def _first(self, key: Key, leaf: Leaf) -> _Place:
        """Return the place of a storage of which no leaf was placed by itself before."""
        spec, storage = leaf.spec, leaf.storage
        whole = not spec.offset and spec.nbytes == storage.nbytes
        if not whole:
            require_memory(leaf)
        address = _address(leaf.storage.key)
        number, known = self._rows.get(address, (0, None))
        if known is not None and (storage.nbytes, spec.dtype) == (known.nbytes, known.dtype):
            self._seen[key] = [Leaf(known, storage)]
            place = _whole(number, known, storage)
        else:
            self._seen[key] = [leaf]
            leaves = self._known.get(key, [leaf])
            place = _whole(self._count, spec, storage) if whole and len(leaves) == 1 else _pack(self._count, leaves)
            self.packed.append(place.packed)
            self._count += 1
        self._places[key] = place
        self._single[address] = None
        return place


def key_in_parts(storage: Storage) -> Hashable:
    """The key of a storage whose bytes may be distributed over several processes; None for any other."""
    return storage.key if storage.source is IN_PIECES else None


def _address(key: Hashable) -> int:
    """Return the address of a storage in memory; 0 for others."""
    return key[1] if isinstance(key, tuple) and key[0] == "memory" else 0


def _whole(number: int, spec: Spec, storage: Storage) -> _Place:
    """The new storage of a tensor that covers its whole storage: the usual case."""
    views = partial(ranges_of, storage, [(0, storage.nbytes)])
    return _Place(Packed(number, storage.nbytes, views, key_in_parts(storage)), {spec: spec})


def _pack(number: int, leaves: Sequence[Leaf]) -> _Place:
    """Return the new storage of leaves that share one."""
    storage, spec = leaves[0].storage, leaves[0].spec
    specs = list(dict.fromkeys(leaf.spec for leaf in leaves))
    if len(specs) == 1:
        return _pack_one(number, storage, spec)
    ranges = _covered(specs)
    size = spec.dtype.itemsize
    places = {}
    for one in specs:
        before = sum(min(stop, one.offset) - start for start, stop in ranges if start < one.offset)
        places[one] = one._replace(offset=before if one.numel else 0)
    nbytes = sum(stop - start for start, stop in ranges) * size
    views = partial(ranges_of, storage, [(start * size, stop * size) for start, stop in ranges])
    return _Place(Packed(number, nbytes, views), places)


def _pack_one(number: int, storage: Storage, spec: Spec) -> _Place:
    """Return the new storage of one view."""
    size = spec.dtype.itemsize
    reach = spec.reach
    elements = prod(n for n, stride in zip(spec.shape, spec.strides) if stride) if spec.numel else 0
    if not spec.numel or elements >= reach - spec.offset:
        start, stop = (spec.offset * size, reach * size) if spec.numel else (0, 0)
        return _Place(
            Packed(number, stop - start, partial(ranges_of, storage, [(start, stop)])), {spec: spec._replace(offset=0)}
        )
    return _Place(Packed(number, elements * size, partial(_elements, storage, spec)), {spec: _dense(spec)})


def _covered(specs: Sequence[Spec]) -> list[tuple[int, int]]:
    """Return the ranges from the first to the last element of each spec, with touching ranges joined."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted((spec.offset, spec.reach) for spec in specs if spec.numel):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _order(spec: Spec) -> list[int]:
    """Return the dimensions that are not expanded, outermost in memory first."""
    kept = [axis for axis, stride in enumerate(spec.strides) if stride]
    return sorted(kept, key=lambda axis: -spec.strides[axis])


def _dense(spec: Spec) -> Spec:
    """Return the spec of the same elements without gaps, in the order of the storage."""
    strides = [0] * len(spec.shape)
    step = 1
    for axis in reversed(_order(spec)):
        strides[axis] = step
        step *= spec.shape[axis]
    return Spec(spec.dtype, spec.shape, tuple(strides))


def _elements(storage: Storage, spec: Spec) -> tuple[memoryview]:
    """Return the elements of `spec`, each once, in the order of the storage."""
    import numpy as np

    from statedict.state import read_array

    order = _order(spec)
    shape, strides = tuple(spec.shape[a] for a in order), tuple(spec.strides[a] for a in order)
    shown = read_array(Leaf(Spec(spec.dtype, shape, strides, spec.offset), storage))
    return (np.ascontiguousarray(shown).reshape(-1).view(np.uint8).data,)


def ranges_of(storage: Storage, ranges: Sequence[tuple[int, int]]) -> Iterator[memoryview]:
    """Yield the bytes of these ranges of a storage, with few of them in memory if possible."""
    # Testing for `Streaming` takes as long as reading a small storage.
    stream = getattr(storage.source, "stream", None)
    if stream is not None:
        for start, stop in ranges:
            yield from stream(storage, start, stop)
        return
    whole = storage.source.view(storage)
    if whole is not None:
        for start, stop in ranges:
            yield whole[start:stop]
        return
    for start, stop in ranges:
        for at in range(start, stop, PIECE):
            piece = memoryview(bytearray(min(PIECE, stop - at)))
            storage.source.read_into([Read(storage, at, piece)])
            yield piece


def elements_of(leaf: Leaf) -> Iterator[memoryview]:
    """Yield the bytes of a leaf's elements in row-major order, with lazy conjugate and negative bits applied."""
    from statedict.state import read_array

    spec = leaf.spec
    if not spec.numel:
        # A checksum may include the header that gives the shape (npz).
        leaf.storage.source.verify([leaf.storage])
        return
    if _is_run(leaf):
        start = spec.offset * spec.dtype.itemsize
        yield from ranges_of(leaf.storage, [(start, start + spec.nbytes)])
    else:
        yield from row_major(read_array(leaf), 0, spec.nbytes)


def contents_of(leaves: Sequence[Leaf]) -> list[tuple[bytes | memoryview, int]]:
    """Return the elements of many small leaves as bytes, with their CRC-32s; neighbours in a file are read in one batch."""
    chosen = [n for n, leaf in enumerate(leaves) if hasattr(leaf.storage.source, "fresh") and _is_run(leaf)]
    table = single_rows([leaves[n] for n in chosen])
    read = dict(zip(chosen, memory_of(table.read(verify=True), table.sizes)))
    found: list[tuple[bytes | memoryview, int]] = []
    for n, leaf in enumerate(leaves):
        content = read[n] if n in read else b"".join(elements_of(leaf))
        # Reading has compared the checksum that the file has of a whole storage.
        known = leaf.storage.where.crc if n in read and _is_whole_extent(leaf) else None
        found.append((content, crc32(content) if known is None else known))
    return found


def _is_whole_extent(leaf: Leaf) -> bool:
    extent = leaf.storage.where
    return isinstance(extent, Extent) and leaf.spec.nbytes == leaf.storage.nbytes == extent.nbytes and extent.swap == 1


def _is_run(leaf: Leaf) -> bool:
    """Whether the elements in row-major order are a run of the storage's bytes, unchanged."""
    return bool(leaf.spec.numel) and leaf.spec.is_contiguous and not leaf.traits.conj and not leaf.traits.neg
