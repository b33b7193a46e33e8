"""The LSTM on NumPy against the steps that serve every library."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.nn.functional._lstm import lstm
from statedict.nn.functional._products import Weights
from statedict.nn.functional._recurrent import lstm_cell, run


def made(shape, dtype, seed):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(dtype)


def settled(draw, dtype):
    """Weights, data, batch sizes and initial state of one layer."""
    width, inputs, projection = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(0, 3))
    sizes = sorted(draw(st.lists(st.integers(1, 10), min_size=1, max_size=6)), reverse=True)
    out = min(projection, width - 1) or width
    shapes = [(4 * width, inputs), (4 * width, out)]
    shapes += [(4 * width,), (4 * width,)] if draw(st.booleans()) else []
    arrays = [made(shape, dtype, seed) for seed, shape in enumerate(shapes)]
    weights = Weights(*arrays, hr=made((out, width), dtype, 7)) if out != width else Weights(*arrays)
    state = made((out, sizes[0]), dtype, 8), made((width, sizes[0]), dtype, 9)
    return weights, made((inputs, sum(sizes)), dtype, 10), sizes, state


@settings(max_examples=150)
@given(drawn=st.data(), dtype=st.sampled_from(["float32", "float64", "float16"]), reverse=st.booleans())
def test_steps_in_kept_memory_are_the_same_steps(drawn, dtype, reverse):
    """Outputs, last states and dtypes are those of the cell that serves every library, and the first state is kept."""
    weights, data, sizes, state = settled(drawn.draw, dtype)
    before = [part.copy() for part in state]
    expected, last = run(lstm_cell(np, weights), np, data, sizes, state, reverse=reverse)
    actual, own_last = lstm(weights, data, sizes, state, reverse=reverse)
    for one, other in zip((expected, *last), (actual, *own_last)):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=5e-3 if dtype == "float16" else 1e-6)
    for one, other in zip(before, state):
        assert (one == other).all()


@pytest.mark.parametrize("sequences", [1, 2, 3, 4, 8])
def test_each_way_of_multiplying(sequences):
    """A speaker encoder's width, where OpenBLAS is called in another way for one, few, some and several sequences."""
    weights = Weights(*(made(shape, "float32", k) / 8 for k, shape in enumerate([(1024, 40), (1024, 256), 1024, 1024])))
    data, state = made((40, 5 * sequences), "float32", 5), tuple(made((256, sequences), "float32", k) for k in (6, 7))
    expected, _ = run(lstm_cell(np, weights), np, data, [sequences] * 5, state, reverse=False)
    actual, _ = lstm(weights, data, [sequences] * 5, state, reverse=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_one_wider_array_widens_the_result():
    """A state of doubles among float32 weights gives doubles, as the same operations on new arrays would."""
    weights = Weights(made((8, 3), "float32", 0), made((8, 2), "float32", 1))
    data, state = made((3, 4), "float32", 2), (made((2, 2), "float64", 3), made((2, 2), "float64", 4))
    expected, _ = run(lstm_cell(np, weights), np, data, [2, 2], state, reverse=False)
    actual, (h, c) = lstm(weights, data, [2, 2], state, reverse=False)
    assert [expected.dtype] * 3 == [actual.dtype, h.dtype, c.dtype]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
