"""Statistics and elements: NumPy's own answers, whatever the dtype and however the chunks fall."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from statedict.report import elements, statistics
from statedict.state import leaf_of, pieces

KEYS = ["min", "max", "mean", "std", "zeros", "nan", "inf"]


@given(arrays(np.float32, array_shapes(min_dims=0, max_side=9), elements=st.floats(width=32)), st.integers(1, 50))
def test_equal_to_numpy_in_pieces_of_any_size(array, elements):
    """Joining pieces gives what NumPy gives at once, over the finite elements."""
    found = statistics(pieces(leaf_of(array), elements))
    assert list(found) == KEYS
    assert [found["nan"], found["inf"]] == [np.isnan(array).sum(), np.isinf(array).sum()]
    assert found["zeros"] == (array == 0).sum()
    finite = array[np.isfinite(array)].astype(np.float64)
    assert list(found) == KEYS
    assert [found["nan"], found["inf"]] == [np.isnan(array).sum(), np.isinf(array).sum()]
    assert found["zeros"] == (array == 0).sum()
    if finite.size:
        expected = [finite.min(), finite.max(), finite.mean(), finite.std()]
        scale = np.abs(finite).max()
        assert [found[k] for k in KEYS[:4]] == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale)
    else:
        assert [found[k] for k in KEYS[:4]] == [None] * 4


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.int64, np.float16, np.float64, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]
)
def test_every_kind_of_number(dtype):
    """Booleans, integers, small floats and complex numbers have statistics, and elements that JSON can hold."""
    array = np.array([0, 1, 1, 0]).astype(dtype)
    assert [statistics([array])[key] for key in ("min", "max", "mean", "zeros")] == [0, 1, 0.5, 2]
    assert np.array(json.loads(json.dumps(elements(array)))).reshape(4, -1)[:, 0].tolist() == [0, 1, 1, 0]


def test_half_precision_complex():
    """complex32, which NumPy lacks, is read as pairs of float16."""
    array = np.array([(3, 4), (np.inf, 0)], dtype=[("real", "<f2"), ("imag", "<f2")])
    assert (statistics([array])["max"], statistics([array])["inf"]) == (5, 1)
    assert elements(array) == [[3, 4], ["Infinity", 0]]


def test_what_json_has_no_numbers_for():
    """NaN and infinities are written by name."""
    assert elements(np.array([[np.nan, -np.inf], [np.inf, 1]])) == [["NaN", "-Infinity"], ["Infinity", 1.0]]


def test_an_empty_tensor_has_no_extremes():
    """No element, no extremes, and nothing counted."""
    assert statistics(pieces(leaf_of(np.empty((0, 3))), 5)) == dict(zip(KEYS, [None] * 4 + [0] * 3))
