"""Excerpts: storages that consist of some runs of bytes of another storage, and read only those.

The rows of a tensor in a file are one run; a box of its columns is one run for each row. The runs are put one after the
other, in the order in which they lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from ..tensors._dtype import dtype
from ..tensors._leaf import Bulk, Leaf, Read, Spec, Storage, Streaming, check_bounds, contiguous
from ._boxes import Box, narrowed
from ._origins import Origin, origins

# Shorter runs are read together with the bytes between them, at most SPAN at a time: a read of its own costs 3 µs.
RUN = 512
SPAN = 4 << 20
# More bytes than this between two runs are never read.
GAP = 16 << 10


class Excerpt(NamedTuple):
    """The value of `Storage.where` here: which bytes of `storage` these are.

    Attributes:
        storage: the storage that they are a part of.
        start: the first byte.
        counts, steps: the number of runs along each dimension, outermost first, and the bytes from one to the next; empty
            if the excerpt is a single run.
        run: the number of bytes of each run.
    """

    storage: Storage
    start: int
    counts: tuple[int, ...]
    steps: tuple[int, ...]
    run: int

    def starts(self, first: int, stop: int) -> Iterator[int]:
        """Return the start of each run, from number `first` to `stop`."""
        if len(self.counts) == 1:
            yield from range(self.start + first * self.steps[0], self.start + stop * self.steps[0], self.steps[0])
            return
        inner = prod(self.counts[1:])
        outer = range(first // inner, -(-stop // inner))
        number = outer.start * inner
        for at in product(outer, *map(range, self.counts[1:])):
            if first <= number < stop:
                yield self.start + sum(n * step for n, step in zip(at, self.steps))
            number += 1


def excerpt(leaf: Leaf) -> Leaf:
    """Return a leaf with the same elements in a storage of only those bytes; expanded dimensions stay expanded.

    The strides of the result have the order of the leaf's own. If elements overlap, the storage covers the bytes from the
    first to the last.
    """
    leaf = _on_base(leaf)
    spec, size = leaf.spec, leaf.spec.dtype.itemsize
    if not spec.numel:
        found, packed = Excerpt(leaf.storage, 0, (), (), 0), spec.dense()
    else:
        found, packed = _runs(leaf)
    nbytes = found.run * prod(found.counts)
    if nbytes == leaf.storage.nbytes and nbytes:
        return leaf
    key = ("excerpt", leaf.storage.key, found[1:], nbytes // size)
    return Leaf(packed, Storage(EXCERPTS, key, nbytes, found, leaf.storage.location), leaf.traits)


def runs_within(leaf: Leaf, box: Box) -> Excerpt:
    """Return which bytes of its storage the elements of a tensor in a box are; there is at least one element."""
    return _runs(Leaf(narrowed(leaf.spec, box), leaf.storage))[0]


def _on_base(leaf: Leaf) -> Leaf:
    """Return a view of an excerpt of one run as a view of the storage that it is a part of."""
    found = leaf.storage.where
    if leaf.storage.source is not EXCERPTS or found.counts or found.start % leaf.spec.dtype.itemsize:
        return leaf
    offset = leaf.spec.offset + found.start // leaf.spec.dtype.itemsize
    return Leaf(leaf.spec._replace(offset=offset), found.storage, leaf.traits)


def _runs(leaf: Leaf) -> tuple[Excerpt, Spec]:
    spec, size = leaf.spec, leaf.spec.dtype.itemsize
    kept = [axis for axis, (n, stride) in enumerate(zip(spec.shape, spec.strides)) if n > 1 and stride]
    order = sorted(kept, key=lambda axis: spec.strides[axis])
    strides = [0] * len(spec.shape)
    elements, levels = 1, list[list[int]]()  # each level: count, and step in elements
    for axis in order:
        n, stride = spec.shape[axis], spec.strides[axis]
        reach = 1 + sum((count - 1) * step for count, step in levels)
        if stride < reach:
            start = spec.offset * size
            return Excerpt(leaf.storage, start, (), (), spec.reach * size - start), spec._replace(offset=0)
        strides[axis] = elements
        elements *= n
        if levels and stride == levels[-1][0] * levels[-1][1]:
            levels[-1][0] *= n
        else:
            levels.append([n, stride])
    run = levels.pop(0)[0] if levels and levels[0][1] == 1 else 1
    counts, steps = (tuple(level[n] for level in reversed(levels)) for n in (0, 1))
    found = Excerpt(leaf.storage, spec.offset * size, counts, tuple(step * size for step in steps), run * size)
    return found, Spec(spec.dtype, spec.shape, tuple(strides))


class _Excerpts:
    """The Source of excerpts. All reads of one batch from one storage's Source are made in one call."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        batches: dict[int, list[Read]] = {}
        for storage, start, into in reads:
            found: Excerpt = storage.where
            batch = batches.setdefault(id(found.storage.source), [])
            if not found.counts:
                batch.append(Read(found.storage, found.start + start, into))
            elif not _in_pieces(found.storage):
                _gather_from_whole(found, start, into, verify)
            elif found.run >= RUN or found.steps[-1] - found.run > GAP:
                batch += _reads(found, start, into)
            else:
                _gather(found, start, into, verify)
        for batch in batches.values():
            if batch:
                batch[0].storage.source.read_into(batch, verify=verify)

    def verify(self, storages: Iterable[Storage]) -> None:
        wholes = {storage.where.storage.key: storage.where.storage for storage in storages}
        for whole in wholes.values():
            whole.source.verify([whole])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        found: Excerpt = storage.where
        if found.counts:
            return None
        whole = found.storage.source.view(found.storage, writable=writable)
        return None if whole is None else whole[found.start : found.start + found.run]

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        found: Excerpt = storage.where
        whole = found.storage
        if not found.counts and isinstance(whole.source, Streaming):
            yield from whole.source.stream(whole, found.start + start, found.start + stop)
            return
        for at in range(start, stop, SPAN):
            into = memoryview(bytearray(min(SPAN, stop - at)))
            self.read_into([Read(storage, at, into)])
            yield into

    def part(self, leaf: Leaf) -> Leaf:
        return excerpt(leaf)

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        base = _on_base(leaf)
        if base is leaf:
            found: Excerpt = leaf.storage.where
            reach = sum((count - 1) * step for count, step in zip(found.counts, found.steps)) + found.run
            base = Leaf(contiguous(dtype("uint8"), (reach,), found.start), found.storage)
        return origins(base)


def _in_pieces(storage: Storage) -> bool:
    source = storage.source
    return not isinstance(source, Bulk) or source.in_pieces(storage)


def _reads(found: Excerpt, start: int, into: memoryview) -> Iterator[Read]:
    """Return the reads for bytes `start …` of an excerpt: one for each run."""
    run, stop = found.run, start + len(into)
    at = 0
    for number, begin in enumerate(found.starts(start // run, -(-stop // run)), start // run):
        low, high = max(start - number * run, 0), min(stop - number * run, run)
        yield Read(found.storage, begin + low, into[at : at + high - low])
        at += high - low


def _gather(found: Excerpt, start: int, into: memoryview, verify: bool) -> None:
    """Read short runs in spans with the bytes between them, and copy them out of these."""
    run, rows, step = found.run, found.counts[-1], found.steps[-1]
    first, stop = start // run, -(-(start + len(into)) // run)
    most = max(1, SPAN // step)
    number = first
    while number < stop:
        count = min(rows - number % rows, stop - number, most)
        begin = next(found.starts(number, number + 1))
        span = memoryview(bytearray((count - 1) * step + run))
        found.storage.source.read_into([Read(found.storage, begin, span)], verify=verify)
        _copy_runs(span, run, step, count, into, number * run - start)
        number += count


def _gather_from_whole(found: Excerpt, start: int, into: memoryview, verify: bool) -> None:
    """Read the whole storage, which is compressed or in the other byte order, and copy the runs out of it."""
    whole = memoryview(bytearray(found.storage.nbytes))
    found.storage.source.read_into([Read(found.storage, 0, whole)], verify=verify)
    for read in _reads(found, start, into):
        read.into[:] = whole[read.start : read.start + len(read.into)]


def _copy_runs(span: memoryview, run: int, step: int, count: int, into: memoryview, at: int) -> None:
    """Copy `count` runs, `step` bytes apart, to byte `at` of `into`, and cut off what lies outside of it."""
    import numpy as np

    runs = np.ndarray((count, run), np.uint8, span, 0, (step, 1)).reshape(-1).data
    low, high = max(-at, 0), min(len(into) - at, count * run)
    into[at + low : at + high] = runs[low:high]


EXCERPTS = _Excerpts()
