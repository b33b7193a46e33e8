"""Read a tensor from its pieces, with few of their bytes in memory at a time.

Pieces that are runs of the tensor's bytes are read straight into place, or passed on as a stream. For others the tensor is
divided into bands of a few megabytes, each a run of its bytes. What a piece has of each band are consecutive elements of
the piece, so every piece is read once, from its beginning to its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from operator import itemgetter
from typing import NamedTuple

from ..tensors._leaf import Leaf, Read, Spec, Storage, Streaming
from ..tensors._pieces import row_major
from ._boxes import Box, run_of

# The size of bands, in bytes. The allocator reuses buffers of this size; those of 1 MB it returned to the system each time.
BAND = 4 << 20


class Piece(NamedTuple):
    """A box of a tensor, and the leaf of the elements in it."""

    box: Box
    leaf: Leaf


class _Band(NamedTuple):
    """A run of a tensor's bytes from `start`: the elements in a box."""

    box: Box
    start: int
    nbytes: int


def read_pieces(spec: Spec, pieces: Iterable[Piece], start: int, into: memoryview, *, verify: bool) -> None:
    """Read bytes `start …` of a row-major tensor from its pieces: those that are contiguous in it straight into place."""
    size = spec.dtype.itemsize
    reads: dict[int, list[Read]] = {}
    scattered = []
    for piece in pieces:
        if not prod(piece.box.sizes):
            continue
        run = run_of(spec.shape, *piece.box)
        if run is None or not is_plain(piece.leaf):
            scattered.append(piece)
            continue
        low, high = max(run[0] * size, start), min((run[0] + run[1]) * size, start + len(into))
        if low < high:
            storage, first = piece.leaf.storage, piece.leaf.spec.offset * size - run[0] * size
            read = Read(storage, first + low, into[low - start : high - start])
            reads.setdefault(id(storage.source), []).append(read)
    for some in reads.values():
        some[0].storage.source.read_into(some, verify=verify)
    if scattered:
        for _ in _filled(spec, scattered, start, start + len(into), into, verify):
            pass


def stream_pieces(spec: Spec, pieces: Sequence[Piece], start: int, stop: int) -> Iterator[memoryview]:
    """Yield bytes `start … stop` of a row-major tensor from its pieces, in order."""
    size = spec.dtype.itemsize
    runs = [(run_of(spec.shape, *box), leaf) for box, leaf in pieces if prod(box.sizes)]
    firsts = [(run[0], leaf) for run, leaf in runs if run is not None and is_plain(leaf)]
    if len(firsts) < len(runs):
        yield from _filled(spec, pieces, start, stop, None, verify=True)
        return
    for first, leaf in sorted(firsts, key=itemgetter(0)):
        low, high = max(first * size, start), min((first + leaf.spec.numel) * size, stop)
        if low < high:
            moved = (leaf.spec.offset - first) * size
            yield from _stream(leaf.storage, low + moved, high + moved, verify=True)


def is_plain(leaf: Leaf) -> bool:
    """Whether the elements are consecutive bytes of the storage, starting at the offset."""
    return leaf.spec.is_contiguous and not leaf.traits.conj and not leaf.traits.neg


def _filled(
    spec: Spec, pieces: Sequence[Piece], start: int, stop: int, into: memoryview | None, verify: bool
) -> Iterator[memoryview]:
    """Yield bytes `start … stop` band by band, as bytes, for any dtype. `into`: write what the pieces have of them there."""
    import numpy as np

    size = spec.dtype.itemsize
    bands = list(_bands(spec, start, stop))
    found = [_blocks(piece, [band.box for band in bands], verify) for piece in pieces]
    for number, band in enumerate(bands):
        low, high = max(band.start, start), min(band.start + band.nbytes, stop)
        direct = into is not None and high - low == band.nbytes
        raw = into[low - start : high - start] if into is not None and direct else np.empty(band.nbytes, np.uint8).data
        if into is not None and not direct:
            raw[low - band.start : high - band.start] = into[low - start : high - start]
        elements = np.frombuffer(raw, np.uint8).reshape(*band.box.sizes, size)
        for places, blocks in found:
            if (box := places.get(number)) is not None:
                target = elements[tuple(slice(at, at + n) for at, n in zip(*box))]
                target[...] = np.frombuffer(next(blocks), np.uint8).reshape(target.shape)
        if into is not None and not direct:
            into[low - start : high - start] = raw[low - band.start : high - band.start]
        yield raw if direct else raw[low - band.start : high - band.start]


def _bands(spec: Spec, start: int, stop: int) -> Iterator[_Band]:
    """Yield the bands of a row-major tensor that have any of bytes `start … stop`."""
    shape, size = spec.shape, spec.dtype.itemsize
    if not shape:
        yield _Band(Box((), ()), 0, size)
        return
    # A band is some rows along this axis, each with everything below it.
    axis = next(n for n in range(len(shape)) if prod(shape[n + 1 :]) * size <= BAND)
    row = prod(shape[axis + 1 :]) * size
    step, begin = BAND // row, 0
    for place in product(*map(range, shape[:axis])):
        for first in range(0, shape[axis], step):
            count = min(step, shape[axis] - first)
            if begin < stop and begin + count * row > start:
                box = Box((*place, first, *[0] * (len(shape) - axis - 1)), (*[1] * axis, count, *shape[axis + 1 :]))
                yield _Band(box, begin, count * row)
            begin += count * row


def _blocks(piece: Piece, bands: Sequence[Box], verify: bool) -> tuple[dict[int, Box], Iterator[memoryview]]:
    """Return which box of each band a piece has, by the number of the band, and the bytes of these boxes."""
    places = {number: box for number, band in enumerate(bands) if (box := piece.box.within(band)) is not None}
    if not places:
        return {}, iter(())
    size = piece.leaf.spec.dtype.itemsize
    first = bands[min(places)].within(piece.box)
    run = run_of(piece.box.sizes, *first) if first is not None else None
    start = run[0] * size if run is not None else 0
    sizes = [prod(box.sizes) * size for box in places.values()]
    return places, regrouped(stream_elements(piece.leaf, start, start + sum(sizes), verify), sizes)


def stream_elements(leaf: Leaf, start: int, stop: int, verify: bool, step: int = BAND) -> Iterator[memoryview]:
    """Yield bytes `start … stop` of the elements of a leaf, in row-major order; `step` at a time if it is up to us."""
    from ..tensors._numpy import read_array

    if is_plain(leaf):
        begin = leaf.spec.offset * leaf.spec.dtype.itemsize
        yield from _stream(leaf.storage, begin + start, begin + stop, verify, step)
    else:
        yield from row_major(read_array(leaf, verify=verify), start, stop)


def _stream(storage: Storage, start: int, stop: int, verify: bool, step: int = BAND) -> Iterator[memoryview]:
    if verify and isinstance(storage.source, Streaming):
        yield from storage.source.stream(storage, start, stop)
        return
    for at in range(start, stop, step):
        into = memoryview(bytearray(min(step, stop - at)))
        storage.source.read_into([Read(storage, at, into)], verify=verify)
        yield into


def regrouped(pieces: Iterator[memoryview], sizes: Sequence[int]) -> Iterator[memoryview]:
    """Yield the bytes of all pieces in blocks of these sizes: slices of the pieces if possible."""
    rest = memoryview(b"")
    for number, size in enumerate(sizes, 1):
        rest = rest or next(pieces)
        found, rest = [rest[:size]], rest[size:]
        missing = size - len(found[0])
        while missing:
            rest = next(pieces)
            found.append(rest[:missing])
            rest, missing = rest[missing:], missing - len(found[-1])
        if number == len(sizes):
            # A checksum is compared after the last piece.
            for _ in pieces:
                pass
        yield found[0] if len(found) == 1 else memoryview(b"".join(found))
