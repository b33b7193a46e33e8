"""Histograms in one pass: what NumPy counts between the same edges, whatever the pieces and the range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from statedict.report._measures import BINS, FEWEST, NARROWEST, Histogram

extreme = st.floats(allow_nan=False, allow_infinity=False)
# Floors of numbers this far apart are exact.
wide, near = (
    st.floats(-reach, reach).filter(lambda number: not number or abs(number) > 2.0**-100) for reach in (2.0**100, 4.0)
)
pieces = st.lists(
    st.one_of(*(arrays(np.float64, array_shapes(max_dims=1, max_side=20), elements=e) for e in (wide, near))),
    max_size=6,
)


def edges(found):
    return [(found.start / found.width + i) * found.width for i in range(len(found.counts) + 1)]


def counted(arrays, **options):
    found = Histogram(**options)
    for array in arrays:
        found.add(array)
    return found


@given(pieces, st.booleans())
def test_every_number_is_in_its_bin(pieces, settle):
    """Each bin holds the numbers from its lower edge to below its upper one, however far later pieces reach."""
    found = counted(pieces)
    if settle:
        found.settle()
    numbers = np.concatenate([*pieces, np.empty(0)])
    places = np.floor(numbers / found.width) - found.start / found.width
    expected = np.bincount(places.astype(int), minlength=len(found.counts)) if len(numbers) else np.zeros(0, int)
    assert found.counts == expected.tolist()
    assert len(found.counts) <= BINS


@given(st.lists(arrays(np.float64, array_shapes(max_dims=1, max_side=5), elements=extreme), min_size=1, max_size=4))
def test_extreme_numbers_are_counted_all_the_same(pieces):
    """Next to the ends of float64 bins are rough; every number is still in one, and the bins have finite edges."""
    found = counted(pieces)
    assert sum(found.counts) == sum(map(len, pieces))
    assert len(found.counts) <= BINS
    assert np.isfinite(edges(found)).all()


@given(st.lists(st.floats(-1, 1), min_size=2, unique=True), st.integers(-300, 300))
def test_bins_are_no_wider_than_they_must_be(numbers, power):
    """The bins are few, and still so many that a shape is seen: half of BINS at least, at any scale."""
    scaled = np.array(numbers) * 2.0**power
    found = counted([scaled])
    span = scaled.max() - scaled.min()
    # What floats can tell apart, and bins of the least width.
    if span > np.abs(scaled).max() * 2.0**-40 and span > BINS * 2.0**NARROWEST:
        assert len(found.counts) > BINS / 2 - 1
    assert found.counts[0]
    assert found.counts[-1]


def test_numbers_that_are_equal_set_no_scale():
    """Zeros that come first do not make the bins too wide for what follows."""
    found = counted([np.zeros(1000), np.linspace(-1e-6, 1e-6, 1000)])
    assert len(found.counts) > BINS / 2
    assert counted([np.full(7, 0.1)]).counts == [7]


def test_a_normal_distribution_is_numpys():
    """Between the same edges NumPy counts the same."""
    numbers = np.random.default_rng(0).normal(size=10_000)
    found = counted(np.array_split(numbers, 7))
    assert found.counts == np.histogram(numbers, edges(found))[0].tolist()


@pytest.mark.parametrize("high", [1, 5, 95, 96, 255, 10**6])
def test_integers_have_bins_of_whole_numbers(high):
    """A bin of integers is at least 1 wide."""
    found = counted([np.arange(high + 1, dtype=float)], whole=True)
    assert found.width == max(1, 2 ** int(np.ceil(np.log2((high + 1) / BINS))))
    assert sum(found.counts) == high + 1


def test_few_numbers_have_few_bins():
    """Settling joins bins that few numbers cannot fill, and loses none."""
    found = counted([np.random.default_rng(0).normal(size=16)])
    assert len(found.counts) > FEWEST
    found.settle()
    assert len(found.counts) <= FEWEST
    assert sum(found.counts) == 16


def test_nothing_counted():
    """No number, no bin."""
    assert counted([np.empty(0)]).counts == []
