"""Ties: tensors that have elements in common, not those that merely lie in one storage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.state import StateDict, leaf_of
from statedict.state.tensors._ties import tied

WHOLE = np.arange(24.0)
GRID = WHOLE.reshape(4, 6)
CASES = {
    "the same": ([WHOLE, WHOLE], [[0, 1]]),
    "halves": ([WHOLE[:12], WHOLE[12:]], []),
    "a part of the whole": ([WHOLE, WHOLE[3:5]], [[0, 1]]),
    "by way of a third": ([WHOLE[:10], WHOLE[14:], WHOLE[8:16]], [[0, 1, 2]]),
    "other memory": ([WHOLE, WHOLE.copy()], []),
    "columns that interleave": ([GRID[:, 0], GRID[:, 1]], []),
    "a row and a column": ([GRID[1], GRID[:, 2]], [[0, 1]]),
    "even and odd": ([WHOLE[::2], WHOLE[1::2]], []),
    "transposed": ([GRID, GRID.T], [[0, 1]]),
    "nothing": ([WHOLE[:0], WHOLE], []),
    "another dtype": ([WHOLE.view("i4")[1:2], WHOLE], [[0, 1]]),
    "two groups": ([WHOLE[:4], WHOLE[6:8], WHOLE[2:5], WHOLE[7:9]], [[0, 2], [1, 3]]),
    "one element expanded": ([np.broadcast_to(WHOLE[:1], (5,)), WHOLE[:1], WHOLE[1:]], [[0, 1]]),
}


@pytest.mark.parametrize("name", CASES)
def test_tied(name):
    """Tensors are tied if they share an element, directly or by way of others."""
    arrays, expected = CASES[name]
    assert tied([leaf_of(array) for array in arrays]) == expected


views = st.builds(slice, st.integers(0, 23), st.integers(0, 24), st.integers(1, 5))


@given(st.lists(views, min_size=2, max_size=6))
def test_tied_as_sets_of_elements(slices):
    """The groups are those that the sets of elements make."""
    groups: list[set[int]] = []
    for index, view in enumerate(slices):
        mine = {index}
        for group in [g for g in groups if any(set(WHOLE[slices[i]]) & set(WHOLE[view]) for i in g)]:
            mine |= group
            groups.remove(group)
        groups.append(mine)
    expected = sorted(sorted(group) for group in groups if len(group) > 1)
    assert tied([leaf_of(WHOLE[view]) for view in slices]) == expected


def test_thousands_of_views_of_one_storage():
    """The work is linear in the number of views: flattened parameters are not tied, and too many views whose ranges
    overlap are assumed to be tied."""
    flat = np.zeros(40_000)
    assert tied([leaf_of(flat[i : i + 2]) for i in range(0, 40_000, 2)]) == []
    columns = flat.reshape(20, 2000)
    leaves = [leaf_of(columns[:, i]) for i in range(2000)]
    assert tied(leaves) == [list(range(2000))]


@given(st.lists(views, min_size=1, max_size=5))
def test_casting_keeps_ties(slices):
    """Tensors that are tied are tied when they were cast, and have their own elements."""
    state = StateDict({str(index): WHOLE[view] for index, view in enumerate(slices)}, backend="numpy")
    cast = state.to("float32")
    assert cast.tied == state.tied
    for name, value in cast.items():
        np.testing.assert_array_equal(value, state[name].astype("f4"))
