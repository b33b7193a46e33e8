"""The bytes of a tensor in parts that are here, and where they lie in the whole tensor in row-major order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from statedict.state import Parts, Piece, runs_within

from ._pack import elements_of


def runs_of(parts: Parts) -> Iterator[Iterator[tuple[int, Iterable[memoryview]]]]:
    """Yield the runs of each piece: the first byte in the whole tensor, and the bytes. The runs of a piece ascend.

    A piece that is not contiguous in its own storage is copied.
    """
    for piece in parts.pieces:
        if prod(piece.box.sizes):
            yield _runs_of_piece(parts, piece)


def _runs_of_piece(parts: Parts, piece: Piece) -> Iterator[tuple[int, Iterable[memoryview]]]:
    places = runs_within(parts, piece.box)
    views = elements_of(piece.leaf)
    if not places.counts:
        yield places.start, views
        return
    rest = memoryview(b"")
    for start in places.starts(0, prod(places.counts)):
        run = []
        missing = places.run
        while missing:
            rest = rest or next(views)
            run.append(rest[:missing])
            rest = rest[len(run[-1]) :]
            missing -= len(run[-1])
        yield start, run
