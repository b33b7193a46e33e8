"""Pieces: a tensor larger than memory, looked at bit by bit."""

import numpy as np
import pytest

from statedict.state import Leaf, Storage, computed, contiguous, dtype, leaf_of, pieces, row_major


class File:
    """A Source that cannot be viewed and remembers the largest read: a fake file."""

    def __init__(self, content):
        self.content, self.largest = content, 0

    def read_into(self, reads, *, verify=True):
        for _, start, into in reads:
            self.largest = max(self.largest, len(into))
            into[:] = self.content[start : start + len(into)]

    def verify(self, storages):
        pass

    def view(self, storage, *, writable=False):
        return None


@pytest.mark.parametrize("elements", [1, 3, 5, 12, 100])
@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4).T, np.zeros((0, 3))])
def test_pieces_in_row_major_order(array, elements):
    """The pieces one after the other are the tensor in row-major order, whatever its strides."""
    found = list(pieces(leaf_of(array), elements))
    assert array.ravel().tolist() == [x for piece in found for x in piece.tolist()]
    assert all(len(piece) == elements for piece in found[:-1])


def test_a_file_is_read_piece_by_piece():
    """A contiguous tensor in a file is never read in more than one piece's bytes at once."""
    values = np.arange(1000, dtype="<f4")
    file = File(values.tobytes())
    leaf = Leaf(contiguous(dtype("float32"), (10, 95), 50), Storage(file, "k", 4000))
    assert values[50:].tolist() == np.concatenate(list(pieces(leaf, 64))).tolist()
    assert file.largest == 64 * 4


def test_a_computed_tensor_is_computed_once():
    """A computed tensor is not computed again for every piece."""
    calls = []
    leaf = leaf_of(np.arange(100.0))
    made = computed(leaf.spec, [leaf], lambda x: calls.append(1) or x + 1)
    assert (np.arange(100.0) + 1).tolist() == np.concatenate(list(pieces(made, 7))).tolist()
    assert len(calls) == 1


@pytest.mark.parametrize("size", [1, 7, 24, 1000])
def test_the_bytes_of_views_are_row_major(size, monkeypatch):
    """Any bytes of a view are those of its contiguous copy, however large the pieces are."""
    monkeypatch.setattr("statedict.state.tensors._pieces.PIECE", 4 * size)
    array = np.arange(24, dtype="f4").reshape(2, 3, 4)
    views = [
        array,
        array.T,
        array.swapaxes(0, 1),
        array[:, ::2],
        np.broadcast_to(array[0], (3, 3, 4)),
        array[:0],
        array[0, 0, 0],
    ]
    for view in views:
        expected = view.tobytes()
        for start, stop in [(0, view.nbytes), (3, view.nbytes - 5), (view.nbytes, view.nbytes)]:
            assert b"".join(row_major(view, start, stop)) == expected[start:stop]
