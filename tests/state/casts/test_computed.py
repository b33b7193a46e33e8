"""Computed leaves: the whole, any bytes of it, and any box are the same elements, however they are read."""

import tracemalloc

import ml_dtypes
import numpy as np
import pytest

from statedict.state import Box, Leaf, Read, computed, dtype, elementwise, leaf_of, read_array, region
from statedict.state.regions._read_pieces import BAND

RNG = np.random.default_rng(0)
SHAPE = (1300, 1007)  # several pieces, which do not end with a row


def made():
    """A leaf of three inputs (dense, transposed, of another dtype), and its elements."""
    a = RNG.normal(size=SHAPE).astype("f4")
    b = RNG.normal(size=SHAPE[::-1]).astype("f4").T
    mask = RNG.random(SHAPE) < 0.5
    leaf = elementwise(dtype("bfloat16"), [leaf_of(a), leaf_of(b), leaf_of(mask)], lambda x, y, kept: (x + y) * kept)
    return leaf, ((a + b) * mask).astype(ml_dtypes.bfloat16)


def test_pieces_are_the_whole():
    """Streamed, viewed, and read into memory, the elements are the same."""
    leaf, expected = made()
    raw = expected.tobytes()
    assert read_array(leaf).tobytes() == raw
    source, storage = leaf.storage.source, leaf.storage
    pieces = list(source.stream(storage, 0, storage.nbytes))
    assert len(pieces) > 2
    assert b"".join(pieces) == raw
    into = memoryview(bytearray(storage.nbytes))
    source.read_into([Read(storage, 0, into)], verify=False)
    assert bytes(into) == raw


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 2), (3, 2_000_001), (1_000_000, 2_618_200), (7, 7)])
def test_any_bytes_can_be_read(start, stop):
    """Bytes that begin or end within an element, or a piece, are those of the whole."""
    leaf, expected = made()
    raw = expected.tobytes()[start:stop]
    assert b"".join(leaf.storage.source.stream(leaf.storage, start, stop)) == raw
    into = memoryview(bytearray(stop - start))
    leaf.storage.source.read_into([Read(leaf.storage, start, into)])
    assert bytes(into) == raw


def test_a_box_is_computed_from_the_boxes_of_the_inputs():
    """A box reads no more of the inputs, and is that part of the whole."""
    leaf, expected = made()
    part = region(leaf, Box((3, 5), (1200, 700)))
    assert [each.spec.shape for each in part.storage.where.inputs] == [(1200, 700)] * 3
    assert np.array_equal(read_array(part), expected[3:1203, 5:705])


def test_the_memory_is_that_of_a_few_pieces():
    """Streaming needs a few pieces beside the inputs, whatever the size."""
    array = np.zeros(8 * BAND // 4, "f4")
    leaf = elementwise(dtype("float32"), [leaf_of(array), leaf_of(array)], lambda x, y: x + y)
    tracemalloc.start()
    for _ in leaf.storage.source.stream(leaf.storage, 0, leaf.storage.nbytes):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * BAND


@pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
def test_small_and_empty_shapes(shape):
    """Scalars and empty tensors keep their shape."""
    array = np.ones(shape, "f4")
    leaf = elementwise(dtype("float64"), [leaf_of(array)], lambda x: x * 2)
    assert read_array(leaf).shape == shape
    assert np.array_equal(read_array(leaf), array * 2)


def test_a_function_of_another_shape_is_an_error():
    """What the function returns must have the shape that was announced, whole or in pieces."""
    small, large = leaf_of(np.ones(3)), leaf_of(np.ones(BAND // 4))
    with pytest.raises(ValueError, match=r"a computed tensor has shape \(2,\), but \(3,\) was expected"):
        read_array(computed(small.spec, [small], lambda x: x[1:]))
    with pytest.raises(ValueError, match=r"a piece of a computed tensor has shape .* was expected"):
        read_array(elementwise(dtype("float64"), [large], lambda x: x[1:]))


def test_leaves_of_leaves_stream_too():
    """An elementwise leaf of elementwise leaves is computed in pieces as a whole."""
    array = RNG.normal(size=3 * BAND // 8)
    leaf: Leaf = leaf_of(array)
    for factor in (2, 3, 5):
        leaf = elementwise(dtype("float64"), [leaf], lambda x, factor=factor: x * factor)
    assert np.array_equal(read_array(leaf), array * 2 * 3 * 5)
