"""Tensors in parts: one logical tensor, of which a process or several files hold boxes.

`join_pieces` returns the leaf of a tensor whose pieces tile it. `Parts` is the value of a sharded tensor in a state: its
spec is that of the whole tensor, and its pieces are those that are here; its other elements cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from math import prod
from typing import Any, NamedTuple

from ...errors import PartError
from ..tensors._dtype import DType
from ..tensors._leaf import PLAIN, Leaf, Read, Spec, Storage, Traits, check_bounds, contiguous
from ._boxes import Box, box_shown, tiling_problem, whole_box
from ._origins import Origin, origins
from ._placement import LocalBox
from ._read_pieces import Piece, read_pieces, stream_pieces
from ._region import arranged, region


class Pieces(NamedTuple):
    """The value of `Storage.where` here: the pieces of a row-major tensor, and a text that says how it is divided.

    `open_ended`: the tensor may be larger than its spec says. `where`: the file and name, for errors.
    """

    spec: Spec
    pieces: Sequence[Piece]
    placement: str
    open_ended: bool = False
    where: str = ""


class Parts(Leaf):
    """The Leaf of a whole tensor of which only some pieces are here.

    Its spec is that of the whole tensor, so it can be planned, renamed and reported like any other. Reading elements that
    are not here raises PartError; `region` returns the parts of it that are.

    Attributes:
        pieces: the boxes that are here, and their leaves.
        placement: how the tensor is divided, as text: `"[Shard(0) of 4]"`.

    `open_ended` is for files that do not say how large the whole tensor is: the spec reaches as far as the pieces do, and
    the tensor is never taken for a whole one. `where` is the file and name, for errors.
    """

    __slots__ = ("pieces", "placement")

    def __init__(
        self,
        dtype: DType,
        shape: Sequence[int],
        pieces: Iterable[Piece],
        placement: str,
        traits: Traits = PLAIN,
        *,
        open_ended: bool = False,
        where: str = "",
    ) -> None:
        self.pieces = tuple(pieces)
        self.placement = placement
        spec = contiguous(dtype, shape)
        super().__init__(spec, _storage(Pieces(spec, self.pieces, placement, open_ended, where)), traits)

    @property
    def is_whole(self) -> bool:
        """Whether all of the tensor is here."""
        found: Pieces = self.storage.where
        return not found.open_ended and (
            any(piece.box == whole_box(self.spec.shape) for piece in self.pieces) or not _tiling_problem(found)
        )

    def whole(self) -> Leaf:
        """Return the whole tensor as an ordinary leaf; raises PartError if the pieces do not tile it."""
        found, box = self.storage.where, whole_box(self.spec.shape)
        for piece in () if found.open_ended else self.pieces:
            if piece.box == box:
                return piece.leaf
        _require_tiled(found)
        return Leaf(self.spec, self.storage, self.traits)

    def __repr__(self) -> str:
        return f"Parts({self.spec.dtype}, {list(self.spec.shape)}, {self.placement})"


def part_at(
    local: Leaf,
    shape: Sequence[int],
    boxes: Iterable[LocalBox],
    placement: str,
    traits: Traits = PLAIN,
    where: str = "",
) -> Parts:
    """Return the Parts of a whole tensor of which one rank has `boxes`, in its tensor `local`; reads no tensor.

    Raises ValueError if a box exceeds `local`.
    """
    pieces = [Piece(each.whole, region(local, each.local)) for each in boxes]
    # A rank without elements has an empty box.
    empty = Piece(whole_box(shape)._replace(sizes=(0,) * len(shape)), local)
    return Parts(local.spec.dtype, shape, pieces or [empty], placement, traits, where=where)


def join_pieces(dtype: DType, shape: Sequence[int], pieces: Iterable[Piece], traits: Traits = PLAIN) -> Leaf:
    """Return the leaf of the tensor that the pieces tile; reads no tensor. Only the pieces' own bytes are read.

    Raises PartError if they do not tile it.
    """
    found = Pieces(contiguous(dtype, shape), tuple(pieces), "")
    _require_tiled(found)
    return Leaf(found.spec, _storage(found), traits)


def join_later(spec: Spec, make: Callable[[], Iterable[Piece]], key: Hashable) -> Leaf:
    """Return the same as `join_pieces`, with pieces that `make` returns when the tensor is first read: there may be many.

    `key`: that of its storage. Reading raises PartError if the pieces do not tile the tensor.
    """
    dense = spec.dense()
    return Leaf(dense, Storage(IN_PIECES, key, dense.nbytes, Pieces(dense, _Later(dense, make), "")))


class _Later(Sequence[Piece]):
    """Pieces that are made when they are first used, and tile a tensor."""

    def __init__(self, spec: Spec, make: Callable[[], Iterable[Piece]]) -> None:
        self._spec = spec
        self._make = make

    @cached_property
    def _made(self) -> tuple[Piece, ...]:
        found = Pieces(self._spec, tuple(self._make()), "")
        _require_tiled(found)
        return tuple(found.pieces)

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, index: Any) -> Any:
        return self._made[index]


class _InPieces:
    """The Source of tensors in pieces."""

    def read_into(self, reads: Sequence[Read], *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        for storage, start, into in reads:
            found: Pieces = storage.where
            _require_tiled(found)
            read_pieces(found.spec, found.pieces, start, into, verify=verify)

    def verify(self, storages: Iterable[Storage]) -> None:
        for storage in storages:
            for piece in storage.where.pieces:
                piece.leaf.storage.source.verify([piece.leaf.storage])

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        _require_tiled(storage.where)
        return None

    def stream(self, storage: Storage, start: int, stop: int) -> Iterator[memoryview]:
        check_bounds([(storage, start, stop - start)])
        found: Pieces = storage.where
        _require_tiled(found)
        yield from stream_pieces(found.spec, found.pieces, start, stop)

    def part(self, leaf: Leaf) -> Leaf:
        found: Pieces = leaf.storage.where
        shown = box_shown(leaf.spec, found.spec.shape)
        if shown is None:
            _require_tiled(found)
            return leaf
        box, axes = shown
        return arranged(part_of(found, box), leaf, axes)

    def origins(self, leaf: Leaf) -> Iterator[Origin]:
        part = self.part(leaf)
        if part.storage.source is not self:
            return origins(part)
        return chain.from_iterable(origins(piece.leaf) for piece in part.storage.where.pieces)


def part_of(found: Pieces, box: Box) -> Leaf:
    """Return a box of a tensor in pieces, from the pieces that overlap it; raises PartError if they do not cover it."""
    overlaps = [
        Piece(in_box, region(piece.leaf, in_piece))
        for piece in found.pieces
        if (in_box := piece.box.within(box)) and (in_piece := box.within(piece.box))
    ]
    for inside, leaf in overlaps:
        if inside.sizes == box.sizes and not found.open_ended:
            return leaf
    spec = contiguous(found.spec.dtype, box.sizes)
    if found.open_ended or tiling_problem(box.sizes, [piece.box for piece in overlaps]):
        raise _not_here(found, f"its part {list(box.sizes)} at {list(box.offsets)} is needed")
    return Leaf(spec, _storage(found._replace(spec=spec, pieces=tuple(overlaps))))


def _storage(found: Pieces) -> Storage:
    key = ("pieces", found.spec, *((box, leaf.identity) for box, leaf in found.pieces))
    location = found.pieces[0].leaf.storage.location if found.pieces else "cpu"
    return Storage(IN_PIECES, key, found.spec.nbytes, found, location)


def _tiling_problem(found: Pieces) -> str | None:
    return tiling_problem(found.spec.shape, [piece.box for piece in found.pieces])


def _require_tiled(found: Pieces) -> None:
    if isinstance(found.pieces, _Later):
        return
    if found.open_ended or _tiling_problem(found):
        raise _not_here(found, "all of it is needed")


def _not_here(found: Pieces, needed: str) -> PartError:
    here = [f"{list(sizes)} at {list(offsets)}" for (offsets, sizes), _ in found.pieces[:3] if prod(sizes)]
    return PartError(found.spec.shape, found.placement, here, needed, found.where)


IN_PIECES = _InPieces()
