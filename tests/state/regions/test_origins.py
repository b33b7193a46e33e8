"""Origins: which bytes of a file a leaf is read from, through views, excerpts, pieces and computations."""

import numpy as np
import pytest

import statedict
from statedict.state import (
    Box,
    Leaf,
    Piece,
    cast_leaf,
    computed,
    dtype,
    join_pieces,
    narrowed,
    origins,
    raw_values,
    region,
)

ARRAY = np.arange(2400, dtype=np.float32).reshape(40, 60)
ROW = 60 * 4
ROWS, COLUMNS = Box((10, 0), (5, 60)), Box((0, 10), (40, 5))
COLUMN_RANGE = (40, 39 * ROW + 60)


@pytest.fixture
def leaf(tmp_path):
    statedict.save({"a": ARRAY}, tmp_path / "a.npz")
    with statedict.open(tmp_path / "a.npz") as checkpoint:
        yield raw_values(checkpoint.state_dict())["a"]


def ranges(leaf, of):
    found = list(origins(leaf))
    assert {storage.key for storage, _, _ in found} <= {of.storage.key}
    return [(start, stop) for _, start, stop in found]


def test_views_and_excerpts_are_ranges_of_the_file(leaf):
    """Rows are their bytes, columns the bytes from the first to the last, and a tensor without elements none."""
    assert ranges(leaf, leaf) == [(0, 40 * ROW)]
    for narrow in (region, lambda leaf, box: Leaf(narrowed(leaf.spec, box), leaf.storage)):
        assert ranges(narrow(leaf, ROWS), leaf) == [(10 * ROW, 15 * ROW)]
        assert ranges(narrow(leaf, COLUMNS), leaf) == [COLUMN_RANGE]
        assert ranges(narrow(leaf, Box((3, 0), (0, 60))), leaf) == []
    assert ranges(region(region(leaf, ROWS), Box((1, 0), (2, 60))), leaf) == [(11 * ROW, 13 * ROW)]
    assert ranges(region(region(leaf, COLUMNS), Box((1, 0), (2, 5))), leaf) == [COLUMN_RANGE]


def test_computed_leaves_have_the_origins_of_their_inputs(leaf):
    """A part of one needs parts of the inputs if its operation can be narrowed, and all of them otherwise."""
    cast = cast_leaf(leaf, dtype("float64"))
    assert ranges(cast, leaf) == [(0, 40 * ROW)]
    assert ranges(region(cast, ROWS), leaf) == [(10 * ROW, 15 * ROW)]
    assert ranges(Leaf(narrowed(cast.spec, ROWS), cast.storage), leaf) == [(10 * ROW, 15 * ROW)]
    opaque = computed(leaf.spec, [leaf, leaf], np.add)
    assert ranges(region(opaque, ROWS), leaf) == [(0, 40 * ROW)] * 2


def test_tensors_in_pieces_have_the_origins_of_their_pieces(leaf):
    """A tensor in pieces has the origins of those pieces that overlap with the region."""
    top, bottom = Box((0, 0), (20, 60)), Box((20, 0), (20, 60))
    joined = join_pieces(leaf.spec.dtype, (40, 60), [Piece(box, region(leaf, box)) for box in (top, bottom)])
    assert ranges(joined, leaf) == [(0, 20 * ROW), (20 * ROW, 40 * ROW)]
    assert ranges(Leaf(narrowed(joined.spec, ROWS), joined.storage), leaf) == [(10 * ROW, 15 * ROW)]
    both = Box((19, 0), (2, 60))
    assert ranges(region(joined, both), leaf) == [(19 * ROW, 20 * ROW), (20 * ROW, 21 * ROW)]
