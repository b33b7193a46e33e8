"""Heat maps: the matrix itself where it is small, root mean squares of its blocks where it is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.report._measures import LONGEST, ODD, PIECE, Heat, matrix, step

sizes = st.integers(1, 40)


def drawn(array, side, rows_a_piece=10**6):
    found = Heat(*array.shape, side)
    for start in range(0, len(array), rows_a_piece):
        found.add(array[start : start + rows_a_piece].astype(np.float64).reshape(-1))
    return found


@given(sizes, sizes, st.integers(1, 12), st.integers(1, 9))
def test_cells_are_root_mean_squares(rows, columns, side, rows_a_piece):
    """Every element counts in exactly one cell, that of its place, whatever the pieces."""
    array = np.random.default_rng(rows * columns).normal(size=(rows, columns))
    found = drawn(array, side, rows_a_piece)
    down, across = min(rows, side), min(columns, side)
    which = [np.arange(length) * cells // length for length, cells in ((rows, down), (columns, across))]
    blocks = [[array[np.ix_(which[0] == i, which[1] == j)] for j in range(across)] for i in range(down)]
    whole = (down, across) == (rows, columns)
    expected = array if whole else [[np.sqrt(np.mean(block**2)) for block in row] for row in blocks]
    assert found.exact == whole
    np.testing.assert_allclose(found.cells(), expected)


def test_structure_is_seen():
    """A dead row and an outlier column stand out of a large matrix."""
    array = np.random.default_rng(0).normal(size=(512, 512))
    array[256:288] = 0
    array[:, 100] *= 50
    cells = drawn(array, 32).cells()
    assert not cells[16:18].any()
    assert (cells[:16].argmax(axis=1) == 100 * 32 // 512).all()


def test_packed_in_a_byte_a_cell():
    """The lowest number is 0, the highest 254, and what is not finite ODD."""
    array = np.array([[-1.0, np.nan], [3.0, 1.0]])
    assert drawn(array, 8).packed() == (-1.0, 3.0, bytes([0, ODD, 254, 127]))
    assert drawn(np.full((2, 2), 7.0), 8).packed() == (7.0, 7.0, bytes(4))
    assert drawn(np.full((2, 2), np.inf), 8).packed() == (0.0, 0.0, bytes([ODD] * 4))
    assert drawn(np.array([[1e308, -1e308], [0, 0]]), 8).packed()[2] == bytes([254, 0, 127, 127])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((), None),
        ((5,), None),
        ((5, 1), None),
        ((0, 5), None),
        ((3, 4), (3, 4)),
        ((1, 3, 4), (3, 4)),
        ((2, 3, 4), (2, 12)),
    ]
    + [((2, LONGEST), (2, LONGEST)), ((2, LONGEST + 1), None)],
)
def test_what_is_a_matrix(shape, expected):
    """Dimensions of size 1 do not count; those after the first are one; rows longer than LONGEST are not drawn."""
    assert matrix(shape) == expected


@given(st.integers(1, LONGEST))
def test_pieces_are_whole_rows(columns):
    """A piece is a number of rows, at least one, and not more than it must be."""
    assert step(columns) % columns == 0
    assert step(columns) <= max(columns, PIECE)
