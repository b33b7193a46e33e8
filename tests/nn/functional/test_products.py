"""The matrix products of recurrent layers against `@`."""

import array_api_strict
import numpy as np
import pytest

from statedict.nn.functional._products import into, of_inputs, of_state, order

RANDOM = np.random.default_rng(0)


def made(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("gates", [1, 3, 4])
@pytest.mark.parametrize("sequences", [0, 1, 2, 3, 4, 7, 8, 11, 16])
@pytest.mark.parametrize("width", [8, 256])
def test_the_state_by_weights(gates, sequences, width):
    """weights · states is the same in every way in which it is done, into given memory too."""
    hh, h = made(gates * width, width), made(width, sequences)
    out = np.empty((gates * width, sequences), np.float32, order(sequences))
    into(hh, h, out, gates)()
    np.testing.assert_allclose(of_state(np, hh, gates)(h), hh @ h, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(out, hh @ h, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sequences", [0, 1, 3, 4, 8])
def test_states_that_are_the_first_columns_of_more(sequences):
    """Sequences that have ended are left out without a copy of those that run on."""
    hh, h = made(32, 8), made(8, 9)[:, :sequences]
    out = np.empty((32, sequences), np.float32, order(sequences))
    into(hh, h, out, 4)()
    np.testing.assert_allclose(out, hh @ h, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [3, 2, 1], [9] * 70, [6, 6, 4, 4, 4, 2, 1], [300, 300], [0, 0]])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_inputs_of_each_step(sizes, biased, reverse):
    """Each step gets weights · its own columns, and the bias; backwards, the last step comes first."""
    ih, data, bias = made(12, 5), made(5, sum(sizes)), made(12) if biased else None
    whole = ih @ data + (bias[:, None] if biased else 0)
    expected = np.split(whole, np.cumsum(sizes)[:-1], axis=1)[:: -1 if reverse else 1]
    for xp in (np, array_api_strict):
        given = [None if part is None else xp.asarray(part) for part in (ih, bias, data)]
        count = 0
        for one, other in zip(expected, of_inputs(xp, *given, sizes, reverse=reverse), strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(np.from_dlpack(other), one, rtol=1e-5, atol=1e-5)
            count += 1
        assert count == len(sizes)
