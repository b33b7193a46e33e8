"""The small values: dtypes, specs, names, computed leaves, fresh memory."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from statedict.errors import MissingDependencyError
from statedict.state import (
    DTYPES,
    Leaf,
    Opaque,
    Read,
    arena,
    computed,
    contiguous,
    contiguous_strides,
    dtype,
    leaf_of,
    library,
    matcher,
    materialize,
    parents,
    read_array,
)


@pytest.mark.parametrize("name", DTYPES)
def test_a_carrier_has_the_size_of_the_dtype(name):
    """The NumPy dtype that carries an element has as many bytes as the element."""
    assert DTYPES[name].itemsize == DTYPES[name].numpy.itemsize


def test_a_dtype_exists_once():
    """Copies and pickles of a dtype are the dtype, and `torch.` may be said."""
    half = dtype("torch.float16")
    assert half is copy.deepcopy(half) is pickle.loads(pickle.dumps(half))
    assert str(half) == "float16"
    with pytest.raises(KeyError):
        dtype("float15")


def test_known_carriers():
    """The dtypes that NumPy lacks are ml_dtypes'."""
    assert np.dtype(ml_dtypes.bfloat16) == dtype("bfloat16").numpy
    assert np.dtype(ml_dtypes.float8_e4m3fn) == dtype("float8_e4m3fn").numpy


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(shapes)
def test_contiguous_strides_are_numpys(shape):
    """Row-major strides are NumPy's, in elements, for every shape without a zero."""
    if 0 not in shape:
        assert tuple(s // 8 for s in np.zeros(shape).strides) == contiguous_strides(shape)
    assert contiguous(dtype("int64"), shape).is_contiguous


@given(arrays.arrays("f4", arrays.array_shapes(max_dims=3, min_side=0, max_side=4)), st.data())
def test_a_leaf_of_any_view_shows_its_elements(base, data):
    """leaf_of then read_array is the identity, whatever the view."""
    view = base.transpose(data.draw(st.permutations(range(base.ndim))))
    index = tuple(slice(data.draw(st.integers(0, 2)), None, data.draw(st.integers(1, 2))) for _ in view.shape)
    view = view[index]
    leaf = leaf_of(view)
    np.testing.assert_array_equal(view, read_array(leaf))
    assert leaf.spec.reach * 4 <= leaf.storage.nbytes


@pytest.mark.parametrize(
    "view", [np.arange(5)[::-1], np.arange(5, dtype=">i8"), np.broadcast_to(np.float32(2), (3, 2))]
)
def test_odd_arrays_are_leaves_too(view):
    """Negative strides, foreign byte order and expanded arrays keep their values."""
    np.testing.assert_array_equal(view, read_array(leaf_of(view)))


@pytest.mark.parametrize("array", [np.array([None]), np.array(["a"]), np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]")])
def test_an_array_of_what_no_tensor_holds_has_no_leaf(array):
    """Arrays of objects, text, records and dates are ordinary values, not leaves."""
    assert leaf_of(array) is None


def test_materialized_leaves_keep_their_ties_and_own_their_memory():
    """Arrays from leaves are copies of the source and share memory exactly where the leaves do."""
    base = np.arange(8.0)
    first, second, alone = materialize([leaf_of(v) for v in (base[2:], base[:4], np.ones(3))], library("numpy"))
    base[:] = 0
    np.testing.assert_array_equal([2, 3, 4, 5, 6, 7], first)
    first[0] = 99
    assert second[2] == 99
    np.testing.assert_array_equal([1, 1, 1], alone)


@pytest.mark.parametrize("nbytes", [0, 10, 5 << 20])
def test_an_arena_is_zeroed_and_writable(nbytes):
    """Small or huge, fresh memory is writable zeros of the size asked for."""
    memory = arena(nbytes)
    assert nbytes == len(memory)
    assert not memory.readonly
    assert not any(memory[:100])


def test_a_computed_leaf_is_computed_at_each_read():
    """Nothing runs before the read, and partial reads are slices of the result."""
    base = np.arange(4.0)
    calls = []
    leaf = computed(contiguous(dtype("float64"), (4,)), [leaf_of(base)], lambda x: calls.append(1) or x * 2)
    assert not calls
    into = bytearray(16)
    leaf.storage.source.read_into([Read(leaf.storage, 8, memoryview(into))])
    np.testing.assert_array_equal([2, 4], np.frombuffer(into))
    assert calls == [1]


def test_a_computation_that_lies_about_its_shape_is_an_error():
    """The spec that was promised is checked when the elements arrive."""
    leaf = computed(contiguous(dtype("float64"), (3,)), [leaf_of(np.zeros(4))], lambda x: x)
    with pytest.raises(ValueError, match=r"shape \(4,\), but \(3,\) was expected"):
        read_array(leaf)


def test_lazy_bits_are_applied():
    """A conjugated or negated leaf shows the conjugated or negated elements."""
    leaf = leaf_of(np.array([1 + 2j]))
    bits = Leaf(leaf.spec, leaf.storage, leaf.traits._replace(conj=True, neg=True))
    np.testing.assert_array_equal([-1 + 2j], read_array(bits))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("head", "head.weight", True),
        ("head", "header.weight", False),
        ("head.", "head.weight", True),
        ("*.bias", "a.b.bias", True),
        ("a.?", "a.b", True),
        ("a.[xy]", "a.z", False),
        ("A.b", "a.b", False),
        ("", "", True),
    ],
)
def test_patterns(pattern, name, fits):
    """A glob covers the whole name; a module's path covers what is below it."""
    assert fits == matcher(pattern)(name)


def test_no_pattern_matches_nothing():
    """The empty selection is empty."""
    assert not matcher(())("a")
    assert not matcher(None)("a")


@pytest.mark.parametrize(("name", "above"), [("a.b.c", ["a.b", "a", ""]), ("a", [""]), (".w", [""])])
def test_parents(name, above):
    """The module paths above a name, nearest first, the root last and once."""
    assert above == parents(name)


def test_an_unknown_backend_is_named():
    """A backend that does not exist, or is not installed, is refused with what to do."""
    with pytest.raises(ValueError, match="backend must be one of 'auto', 'numpy', 'torch', not 'tensorflow'"):
        library("tensorflow")


def test_a_backend_that_is_not_installed_says_how_to_get_it(monkeypatch):
    """Asking for torch where it is absent names the extra that brings it."""
    monkeypatch.setattr("statedict.state.tensors._library.find_spec", lambda name: None)
    monkeypatch.delitem(__import__("sys").modules, "torch", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'statedict\[torch\]'"):
        library("torch")


def test_an_opaque_value_is_inert():
    """An Opaque prints its class, gives its attributes, and is not a sequence."""
    value = Opaque("argparse", "Namespace", ())
    value.state = {"lr": 0.1}
    assert repr(value) == "<opaque argparse.Namespace(…)>"
    assert value.attributes() == {"lr": 0.1}
    with pytest.raises(TypeError, match="inert data"):
        iter(value)
