"""Tensors in pieces, read as a whole, in parts and as streams; NumPy is the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from statedict.state import Box, Leaf, Piece, Read, join_pieces, leaf_of, read_array
from statedict.state.regions import _read_pieces

SHAPE = (6, 5, 4)
GRIDS = {
    "rows": [Box((0, 0, 0), (4, 5, 4)), Box((4, 0, 0), (2, 5, 4))],
    "columns": [Box((0, 0, 0), (6, 2, 4)), Box((0, 2, 0), (6, 3, 4))],
    "last": [Box((0, 0, 0), (6, 5, 1)), Box((0, 0, 1), (6, 5, 3))],
    "grid": [Box((y, x, 0), (3, n, 4)) for y in (0, 3) for x, n in ((0, 1), (1, 4))],
    "empty": [Box((0, 0, 0), (6, 0, 4)), Box((0, 0, 0), (6, 5, 4))],
}


@pytest.fixture(params=[8, 32, 96, 1 << 20])
def band(request, monkeypatch):
    """Bands of several sizes, also smaller than a row."""
    monkeypatch.setattr(_read_pieces, "BAND", request.param)


def in_pieces(array, boxes, turned=False):
    """The leaf of an array whose pieces are copies; `turned`: stored in column-major order."""
    pieces = []
    for box in boxes:
        part = array[tuple(slice(at, at + n) for at, n in zip(*box))]
        pieces.append(Piece(box, leaf_of(np.asfortranarray(part) if turned else part.copy())))
    return join_pieces(leaf_of(array).spec.dtype, array.shape, pieces)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("boxes", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.usefixtures("band")
def test_any_bytes_of_a_tensor_in_pieces_can_be_read(boxes, turned, verify):
    """A read and a stream of any range of bytes give those of the whole tensor, however it is divided."""
    array = np.arange(120, dtype=np.int16).reshape(SHAPE)
    leaf, raw = in_pieces(array, boxes, turned), array.tobytes()
    assert read_array(leaf, verify=verify).tolist() == array.tolist()
    for start, stop in ((0, 240), (0, 2), (3, 9), (38, 41), (100, 240), (17, 17)):
        into = bytearray(stop - start)
        leaf.storage.source.read_into([Read(leaf.storage, start, memoryview(into))], verify=verify)
        assert bytes(into) == raw[start:stop]
        assert b"".join(leaf.storage.source.stream(leaf.storage, start, stop)) == raw[start:stop]


def test_a_stream_is_in_bands(monkeypatch):
    """A tensor divided by columns is streamed a band at a time, not as a whole."""
    monkeypatch.setattr(_read_pieces, "BAND", 32)
    leaf = in_pieces(np.arange(120, dtype=np.int16).reshape(SHAPE), GRIDS["last"])
    assert {len(band) for band in leaf.storage.source.stream(leaf.storage, 0, 240)} == {32, 8}


def test_a_conjugated_scalar_in_one_piece_can_be_read():
    """A piece without dimensions whose elements are not those in memory is read too."""
    leaf = leaf_of(np.array(3 + 4j))
    piece = Piece(Box((), ()), Leaf(leaf.spec, leaf.storage, leaf.traits._replace(conj=True)))
    whole = join_pieces(leaf.spec.dtype, (), [piece])
    assert read_array(whole).tolist() == 3 - 4j
