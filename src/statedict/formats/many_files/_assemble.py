"""Storages assembled from chunks, each a tensor in its own torch zip inside one of the directory's files.

A chunk is opened when its bytes are first read, not before: its shape and dtype are known from the directory's
metadata. A chunk that is a contiguous run of the tensor (PyTorch's FSDP shards by rows) is read straight into place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from math import prod
from typing import NamedTuple

from statedict.files import Folder, Location
from statedict.state import (
    Box,
    DType,
    Leaf,
    Origin,
    Piece,
    Pieces,
    Read,
    Storage,
    arguments,
    arranged,
    box_shown,
    check_bounds,
    contiguous,
    is_plain,
    origins,
    part_of,
    read_pieces,
    region,
    stream_pieces,
    whole_box,
)

from ...errors import FormatError
from .._limits import Limits
from .._pickle import Import
from ..checkpoint._checkpoint import Checkpoint
from ..torch_files._read import read_torch_zip

# Opening a chunk that another process reads costs more than verifying this many bytes twice.
SMALL = 1 << 20


class Chunk(NamedTuple):
    """A box of a tensor, and the location of the torch zip that contains it."""

    box: Box
    location: Location


class Sharded(NamedTuple):
    """The value of `Storage.where` here: the tensor, and the chunks that tile it."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class ChunkSource:
    """The Source of storages assembled from chunks."""

    def __init__(self, folder: Folder, limits: Limits) -> None:
        self.name = folder.path
        self._folder = folder
        self._limits = limits
        self._leaves: dict[Location, Leaf] = {}
        self._imports: dict[Location, list[Import]] = {}
        self._made: list[Sharded] = []
        self._token = next(_TOKENS)

    def leaf(self, sharded: Sharded) -> Leaf:
        """Return the tensor that the chunks form; no file is opened."""
        spec = contiguous(sharded.dtype, sharded.shape)
        self._made.append(sharded)
        return Leaf(spec, Storage(self, ("chunks", self._token, sharded.name), spec.nbytes, sharded))

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            lone = self._lone(storage)
            if lone is not None:
                begin = lone.spec.offset * lone.spec.dtype.itemsize + start
                lone.storage.source.read_into([Read(lone.storage, begin, into)], verify=verify)
            else:
                sharded: Sharded = storage.where
                read_pieces(contiguous(sharded.dtype, sharded.shape), self._pieces(sharded), start, into, verify=verify)

    def part(self, leaf: Leaf) -> Leaf:
        """Return a leaf of the chunks that overlap with what `leaf` shows; opens only their files."""
        sharded: Sharded = leaf.storage.where
        shown = box_shown(leaf.spec, sharded.shape)
        if shown is None:
            return leaf
        pieces = tuple(self._pieces(sharded, shown[0]))
        found = Pieces(contiguous(sharded.dtype, sharded.shape), pieces, "")
        return arranged(part_of(found, shown[0]), leaf, shown[1])

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        """Return the bytes of the chunks that `leaf` shows a part of.

        Other chunks and small ones are left out, unopened: a process that reads of them verifies them by itself.
        """
        sharded: Sharded = leaf.storage.where
        shown = box_shown(leaf.spec, sharded.shape)
        box = whole_box(sharded.shape) if shown is None else shown[0]
        for chunk in sharded.chunks:
            inside = box.within(chunk.box)
            if inside and inside.sizes != chunk.box.sizes and prod(chunk.box.sizes) * sharded.dtype.itemsize > SMALL:
                yield from origins(region(self._leaf(sharded, chunk), inside))

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        sharded: Sharded = storage.where
        pieces = list(self._pieces(sharded))
        yield from stream_pieces(contiguous(sharded.dtype, sharded.shape), pieces, start, stop)

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            sharded: Sharded = storage.where
            for chunk in sharded.chunks:
                stored = self._leaf(sharded, chunk).storage
                try:
                    stored.source.verify([stored])
                except FormatError as error:
                    raise error.located(member=sharded.name) from None

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        lone = self._lone(storage)
        if lone is None:
            return None
        view = lone.storage.source.view(lone.storage, writable=writable)
        return None if view is None else view[lone.spec.offset * lone.spec.dtype.itemsize :][: storage.nbytes]

    def _lone(self, storage: Storage) -> Leaf | None:
        """Return the leaf of the only chunk if it is the whole storage, in row-major order."""
        sharded: Sharded = storage.where
        leaf = self._leaf(sharded, sharded.chunks[0]) if len(sharded.chunks) == 1 else None
        return leaf if leaf is not None and is_plain(leaf) else None

    def _pieces(self, sharded: Sharded, box: Box | None = None) -> Iterator[Piece]:
        """Return the chunks as pieces: all that have elements, or those that overlap with `box`."""
        for chunk in sharded.chunks:
            if chunk.box.within(box or whole_box(sharded.shape)):
                yield Piece(chunk.box, self._leaf(sharded, chunk))

    def _leaf(self, sharded: Sharded, chunk: Chunk) -> Leaf:
        """Return the tensor in a chunk's file; raise FormatError if it does not match the metadata."""
        leaf = self._leaves.get(chunk.location)
        if leaf is None:
            opened = self.open(chunk.location, self._limits)
            self._imports[chunk.location] = opened.globals
            found = opened.object
            if not isinstance(found, Leaf) or (found.spec.dtype, found.spec.shape) != (sharded.dtype, chunk.box.sizes):
                raise FormatError(
                    f"this chunk should be a tensor of {sharded.dtype} {list(chunk.box.sizes)}, but it is "
                    f"{_shown(found)}",
                    file=self._folder.path_of(chunk.location.file),
                    member=sharded.name,
                    offset=chunk.location.start,
                )
            leaf = self._leaves[chunk.location] = found
        return leaf

    def open(self, location: Location, limits: Limits) -> Checkpoint:
        """Open the torch zip at a location."""
        return read_torch_zip(self._folder.slice(location), limits)

    def imports(self) -> Iterator[Import]:
        """Yield the imports of the pickles in all chunks. Chunks that cannot be read are skipped; reading or verifying
        them raises the error.
        """
        for sharded in self._made:
            for chunk in sharded.chunks:
                with suppress(FormatError, OSError):
                    self._leaf(sharded, chunk)
                yield from self._imports.get(chunk.location, ())


def _shown(value: object) -> str:
    return f"{value.spec.dtype} {list(value.spec.shape)}" if isinstance(value, Leaf) else arguments.a(value)


_TOKENS = count()
