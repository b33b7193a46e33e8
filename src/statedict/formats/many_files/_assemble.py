"""Storages assembled from chunks, each a tensor in its own torch zip inside one of the directory's files.

A chunk is opened when its bytes are first read, not before: its shape and dtype are known from the directory's
metadata. A chunk that is a contiguous run of the tensor (PyTorch's FSDP shards by rows) is read straight into place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.state import DType, Leaf, Read, Storage, Streaming, check_bounds, contiguous, read_array

from ...errors import FormatError
from .._limits import Limits
from .._pickle import Import
from ..checkpoint._checkpoint import Checkpoint
from ..checkpoint._walk import leaves
from ..torch_files._read import read_torch_zip
from ._open_files import Location, OpenFiles
from ._tiling import run_of

if TYPE_CHECKING:
    import numpy as np


class Chunk(NamedTuple):
    """A box of a tensor, and the location of the torch zip that contains it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    location: Location


class Sharded(NamedTuple):
    """The value of `Storage.where` here: the tensor, and the chunks that tile it."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class ChunkSource:
    """The Source of storages assembled from chunks."""

    def __init__(self, files: OpenFiles, limits: Limits) -> None:
        self.name = files.folder
        self._files = files
        self._limits = limits
        self._leaves: dict[Location, Leaf] = {}
        self._imports: dict[Location, list[Import]] = {}
        self._token = next(_TOKENS)

    def leaf(self, sharded: Sharded) -> Leaf:
        """Return the tensor that the chunks form; no file is opened."""
        spec = contiguous(sharded.dtype, sharded.shape)
        return Leaf(spec, Storage(self, ("chunks", self._token, sharded.name), spec.nbytes, sharded))

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            lone = self._lone(storage)
            if lone is not None:
                begin = lone.spec.offset * lone.spec.dtype.itemsize + start
                lone.storage.source.read_into([Read(lone.storage, begin, into)], verify=verify)
            elif len(into) == storage.nbytes:
                self._assemble(storage.where, into, verify)
            else:
                into[:] = self._whole(storage, verify)[start : start + len(into)]

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        lone = self._lone(storage)
        if lone is not None and isinstance(lone.storage.source, Streaming):
            begin = lone.spec.offset * lone.spec.dtype.itemsize
            yield from lone.storage.source.stream(lone.storage, begin + start, begin + stop)
        else:
            yield self._whole(storage)[start:stop]

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
            return None if writable else self._whole(storage)
        view = lone.storage.source.view(lone.storage, writable=writable)
        return None if view is None else view[lone.spec.offset * lone.spec.dtype.itemsize :][: storage.nbytes]

    def _lone(self, storage: Storage) -> Leaf | None:
        """Return the leaf of the only chunk if it is the whole storage, in row-major order."""
        sharded: Sharded = storage.where
        leaf = self._leaf(sharded, sharded.chunks[0]) if len(sharded.chunks) == 1 else None
        return leaf if leaf is not None and _is_plain(leaf) else None

    def _whole(self, storage: Storage, verify: bool = True) -> memoryview:
        whole = memoryview(bytearray(storage.nbytes))
        self._assemble(storage.where, whole, verify)
        return whole

    def _assemble(self, sharded: Sharded, into: memoryview, verify: bool) -> None:
        size = sharded.dtype.itemsize
        for chunk in sharded.chunks:
            if not prod(chunk.sizes):
                continue
            leaf = self._leaf(sharded, chunk)
            run = run_of(sharded.shape, chunk.offsets, chunk.sizes)
            if run is not None and _is_plain(leaf):
                part = into[run[0] * size : (run[0] + run[1]) * size]
                leaf.storage.source.read_into([Read(leaf.storage, leaf.spec.offset * size, part)], verify=verify)
            else:
                _scatter(sharded, chunk, read_array(leaf, verify=verify), into)

    def _leaf(self, sharded: Sharded, chunk: Chunk) -> Leaf:
        """Return the tensor in a chunk's file; raise FormatError if it does not match the metadata."""
        leaf = self._leaves.get(chunk.location)
        if leaf is None:
            opened = self.open(chunk.location, self._limits)
            self._imports[chunk.location] = opened.globals
            found = opened.object
            if not isinstance(found, Leaf) or (found.spec.dtype, found.spec.shape) != (sharded.dtype, chunk.sizes):
                raise FormatError(
                    f"this chunk should be a tensor of {sharded.dtype} {list(chunk.sizes)}, but it is {_shown(found)}",
                    file=os.path.join(self._files.folder, chunk.location.file),
                    member=sharded.name,
                    offset=chunk.location.start,
                )
            leaf = self._leaves[chunk.location] = found
        return leaf

    def open(self, location: Location, limits: Limits) -> Checkpoint:
        """Open the torch zip at a location."""
        return read_torch_zip(self._files.slice(location), limits)

    def imports(self, tree: object) -> Iterator[Import]:
        """Yield the imports of the pickles in all chunks of the tensors in a tree. Chunks that cannot be read are
        skipped; reading or verifying them raises the error.
        """
        for _, leaf in leaves(tree):
            if leaf.storage.source is self:
                sharded: Sharded = leaf.storage.where
                for chunk in sharded.chunks:
                    with suppress(FormatError):
                        self._leaf(sharded, chunk)
                    yield from self._imports.get(chunk.location, ())


def _is_plain(leaf: Leaf) -> bool:
    """Return whether the elements are consecutive bytes of the storage, starting at the offset."""
    return leaf.spec.is_contiguous and not leaf.traits.conj and not leaf.traits.neg


def _scatter(sharded: Sharded, chunk: Chunk, elements: np.ndarray[Any, Any], into: memoryview) -> None:
    """Copy a chunk that is not a contiguous run into its box of the tensor, as bytes, for any dtype."""
    import numpy as np

    size = sharded.dtype.itemsize
    whole: np.ndarray[Any, Any] = np.frombuffer(into, np.uint8).reshape(*sharded.shape, size)
    box = tuple(slice(at, at + length) for at, length in zip(chunk.offsets, chunk.sizes))
    whole[box] = np.ascontiguousarray(elements).reshape(-1).view(np.uint8).reshape(*chunk.sizes, size)


def _shown(value: object) -> str:
    return f"{value.spec.dtype} {list(value.spec.shape)}" if isinstance(value, Leaf) else f"a {type(value).__name__}"


_TOKENS = count()
