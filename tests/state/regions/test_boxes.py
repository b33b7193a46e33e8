"""Boxes that tile a box."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.state.regions._boxes import MOST_CUT, boxes_of_run, run_of, tiling_problem

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)


def covered(shape, boxes):
    """How often each element is covered, counted one by one."""
    counts = np.zeros(shape, int)
    for offsets, sizes in boxes:
        counts[tuple(slice(a, a + n) for a, n in zip(offsets, sizes))] += 1
    return counts


def cut(draw, offsets, sizes, depth=3):
    """A box cut at random into boxes that tile it."""
    axis = draw(st.integers(0, len(sizes) - 1))
    if depth == 0 or sizes[axis] < 2 or draw(st.booleans()):
        return [(offsets, sizes)]
    at = draw(st.integers(1, sizes[axis] - 1))
    low = sizes[:axis] + (at,) + sizes[axis + 1 :]
    high = sizes[:axis] + (sizes[axis] - at,) + sizes[axis + 1 :]
    moved = offsets[:axis] + (offsets[axis] + at,) + offsets[axis + 1 :]
    return cut(draw, offsets, low, depth - 1) + cut(draw, moved, high, depth - 1)


@given(st.data())
def test_a_cut_box_is_tiled(data):
    """The parts of a box that was cut tile it, in any order, empty ones among them."""
    shape = data.draw(SIZES)
    boxes = cut(data.draw, (0,) * len(shape), shape)
    empty = ((0,) * len(shape), (0,) * len(shape))
    assert tiling_problem(shape, data.draw(st.permutations([*boxes, empty]))) is None


@given(st.data())
def test_the_answer_is_that_of_counting(data):
    """Any boxes at all tile the whole exactly when counting says that each element is covered once."""
    shape = data.draw(SIZES)
    spans = [st.integers(0, n).flatmap(lambda a, n=n: st.tuples(st.just(a), st.integers(0, n - a))) for n in shape]
    drawn = data.draw(st.lists(st.tuples(*spans), max_size=5))
    boxes = [(tuple(a for a, _ in box), tuple(n for _, n in box)) for box in drawn]
    assert (tiling_problem(shape, boxes) is None) == bool((covered(shape, boxes) == 1).all())


@pytest.mark.parametrize(
    ("boxes", "problem"),
    [
        ([], "they leave gaps or overlap"),
        ([((0,), (2,))], "a chunk has 1 dimensions, not 2"),
        ([((0, 1), (2, 3))], r"the chunk \[2, 3\] at \[0, 1\] exceeds the shape \[2, 3\]"),
        ([((0, -1), (2, 3))], r"exceeds the shape"),
        ([((0, 3), (2, -3))], r"the chunk \[2, -3\] at \[0, 3\] exceeds the shape \[2, 3\]"),
        ([((0, 0), (2, 3)), ((0, 0), (2, 3))], "they leave gaps or overlap"),
    ],
)
def test_what_is_wrong_is_said(boxes, problem):
    """The text says why the boxes do not tile the whole."""
    assert re.search(problem, tiling_problem((2, 3), boxes))


def test_a_scalar_and_an_empty_tensor_are_tiled():
    """A scalar has one box without dimensions; a tensor without elements needs none."""
    assert tiling_problem((), [((), ())]) is None
    assert tiling_problem((), []) is not None
    assert tiling_problem((0, 3), []) is None
    assert tiling_problem((0, 3), [((0, 0), (0, 3))]) is None


def test_many_cut_dimensions_are_refused():
    """A box has two corners for each cut dimension, so their number is limited."""
    halves = [(offsets, (1,) * MOST_CUT) for offsets in product(range(2), repeat=MOST_CUT)]
    assert tiling_problem((2,) * MOST_CUT, halves) is None
    shape = (2,) * (MOST_CUT + 1)
    assert "are supported" in tiling_problem(shape, [((0,) * len(shape), (1,) * len(shape))])


@given(st.data())
def test_a_run_is_where_the_elements_are(data):
    """A box is a run exactly where its elements, numbered row by row, are consecutive."""
    shape = data.draw(SIZES)
    box = [
        data.draw(st.integers(0, n - 1).flatmap(lambda a, n=n: st.tuples(st.just(a), st.integers(1, n - a))))
        for n in shape
    ]
    numbers = np.arange(np.prod(shape)).reshape(shape)[tuple(slice(a, a + n) for a, n in box)].ravel()
    consecutive = bool((np.diff(numbers) == 1).all())
    found = run_of(shape, [a for a, _ in box], [n for _, n in box])
    assert found == ((numbers[0], len(numbers)) if consecutive else None)


@given(st.data())
def test_a_run_is_the_boxes_that_it_forms(data):
    """The boxes of a run have its elements, in order, and each is a run itself."""
    shape = data.draw(SIZES)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    first = data.draw(st.integers(0, numbers.size - 1))
    count = data.draw(st.integers(0, numbers.size - first))
    boxes = boxes_of_run(shape, first, count)
    found = [numbers[tuple(slice(a, a + n) for a, n in zip(*box))].reshape(-1) for box in boxes]
    assert [number for part in found for number in part] == list(range(first, first + count))
    assert all(run_of(shape, *box) == (part[0], len(part)) for box, part in zip(boxes, found))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


def test_a_run_in_a_scalar():
    """A tensor without dimensions has one run, which is one box."""
    assert boxes_of_run((), 0, 1) == [((), ())]
    assert boxes_of_run((), 0, 0) == []
