"""The error function against the C library's."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from statedict.nn.functional._erf import erf, erfc


@given(st.lists(st.floats(-30, 30), min_size=1))
def test_double_precision(numbers):
    """erf is right to 1e-15, erfc to 1e-13 of itself, as far out as a double can tell."""
    x = np.array(numbers)
    np.testing.assert_allclose(erf(x), [math.erf(n) for n in numbers], rtol=0, atol=1e-15)
    expected = np.array([math.erfc(n) for n in numbers])
    normal = expected > 1e-300
    np.testing.assert_allclose(erfc(x)[normal], expected[normal], rtol=2e-13)


@given(st.lists(st.floats(-12, 12, width=32), min_size=1))
def test_single_precision(numbers):
    """In float32 both are right to a few units in the last place, and stay float32."""
    x = np.array(numbers, np.float32)
    assert erf(x).dtype == np.float32
    np.testing.assert_allclose(erf(x), [math.erf(n) for n in numbers], rtol=0, atol=3e-7)
    np.testing.assert_allclose(erfc(x), [math.erfc(n) for n in numbers], rtol=2e-5, atol=1e-37)


def test_ends():
    """Infinities, zeros and NaN."""
    x = np.array([np.inf, -np.inf, 0.0, np.nan])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(erfc(x)[:3], [0.0, 2.0, 1.0])
        assert np.isnan(erfc(x)[3])
