"""Regions of tensors: the same elements as slices, and no more bytes read than needed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import PartError
from statedict.state import (
    Box,
    Compound,
    Leaf,
    Parts,
    Piece,
    Storage,
    cast_leaf,
    check_bounds,
    computed,
    contiguous,
    dtype,
    excerpt,
    join_later,
    join_pieces,
    leaf_of,
    read_array,
    region,
)

FLOAT = dtype("float32")


class File:
    """A Source of one array in a file, which counts the bytes read."""

    def __init__(self, array, in_pieces=True):
        self.raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8).tobytes()
        self.leaf = Leaf(contiguous(dtype(str(array.dtype)), array.shape), Storage(self, id(self), len(self.raw)))
        self.count = 0
        self.calls = 0
        self.verified = 0
        self._in_pieces = in_pieces

    def read_into(self, reads, *, verify=True):
        check_bounds((storage, start, len(into)) for storage, start, into in reads)
        self.calls += 1
        for _, start, into in reads:
            into[:] = self.raw[start : start + len(into)]
            self.count += len(into)

    def fresh(self, storages, starts, sizes, *, verify=True):
        return None

    def in_pieces(self, storage):
        return self._in_pieces

    def verify(self, storages):
        self.verified += 1

    def view(self, storage, *, writable=False):
        return None

    def part(self, leaf):
        return excerpt(leaf)


def slices(box):
    return tuple(slice(at, at + n) for at, n in zip(*box))


@st.composite
def boxes(draw, shape):
    starts = [draw(st.integers(0, n)) for n in shape]
    return Box(tuple(starts), tuple(draw(st.integers(0, n - at)) for at, n in zip(starts, shape)))


SHAPES = st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple)


def numbers(shape):
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


@given(st.data())
def test_a_region_has_the_elements_of_a_slice(data):
    """A box of a tensor in a file, in memory, permuted, cast or computed has the elements of NumPy's slice, and a box of the
    box likewise."""
    shape = data.draw(SHAPES)
    array = numbers(shape)
    order = data.draw(st.permutations(range(len(shape))))
    box = data.draw(boxes(tuple(shape[axis] for axis in order)))
    inner = data.draw(boxes(box.sizes))
    for leaf in (
        File(array).leaf,
        File(array, in_pieces=False).leaf,
        leaf_of(array),
        in_rows(array),
        cast_twice(array),
    ):
        spec = leaf.spec
        shapes, strides = (tuple(row[axis] for axis in order) for row in (spec.shape, spec.strides))
        view = Leaf(spec._replace(shape=shapes, strides=strides), leaf.storage)
        found = region(view, box)
        expected = array.transpose(order)[slices(box)]
        np.testing.assert_array_equal(read_array(found), expected)
        np.testing.assert_array_equal(read_array(region(found, inner)), expected[slices(inner)])


def in_rows(array):
    """The array from two files, if it has an axis that can be split."""
    if not array.ndim or array.shape[-1] < 2:
        return File(array).leaf
    parts = [array[..., :1], array[..., 1:]]
    at = [(0,) * (array.ndim - 1) + (n,) for n in (0, 1)]
    pieces = [Piece(Box(place, part.shape), File(part).leaf) for place, part in zip(at, parts)]
    return join_pieces(FLOAT, array.shape, pieces)


def cast_twice(array):
    return cast_leaf(cast_leaf(File(array).leaf, dtype("float64")), FLOAT)


@pytest.mark.parametrize("sizes", [(16, 8, 32), (64, 1024, 3)])
def test_rows_of_a_file_are_read_exactly(sizes):
    """Rows, and rows of a box of rows, read exactly their own bytes, with the whole tensor's alignment of elements."""
    file = File(numbers(sizes))
    rows = region(region(file.leaf, Box((4, 0, 0), (8, *sizes[1:]))), Box((1, 0, 0), (2, *sizes[1:])))
    np.testing.assert_array_equal(read_array(rows), numbers(sizes)[5:7])
    assert file.count == rows.spec.nbytes
    assert rows.storage.where.storage is file.leaf.storage


@pytest.mark.parametrize(("width", "most"), [(4096, 1.0), (64, 2.0), (100_000, 1.0)])
def test_columns_of_a_file_are_read_in_ranges(width, most):
    """Columns are read in a range for each row, or, where rows are short, in spans with the bytes between them."""
    array = numbers((50, width))
    file = File(array)
    found = region(file.leaf, Box((10, width // 2), (30, width // 2)))
    np.testing.assert_array_equal(read_array(found), array[10:40, width // 2 :])
    assert file.count <= most * found.spec.nbytes
    assert file.calls == 1


def test_a_storage_that_cannot_be_read_in_parts_is_read_once():
    """Columns of a compressed storage are cut out of the whole, which is read once."""
    array = numbers((50, 4096))
    file = File(array, in_pieces=False)
    found = region(file.leaf, Box((0, 0), (50, 1024)))
    np.testing.assert_array_equal(read_array(found), array[:, :1024])
    assert (file.calls, file.count) == (1, array.nbytes)


class StreamedFile(File):
    """The same, which gives bytes as a stream, too, in pieces of up to 16."""

    def stream(self, storage, start, stop):
        for at in range(start, stop, 16):
            self.count += min(16, stop - at)
            yield memoryview(self.raw)[at : min(at + 16, stop)]


def test_a_stream_of_rows_is_that_of_their_file():
    """Rows are streamed in the pieces of their file, of which nothing else is read, and no piece is copied."""
    file = StreamedFile(numbers((8, 5)))
    rows = region(file.leaf, Box((2, 0), (3, 5)))
    pieces = list(rows.storage.source.stream(rows.storage, 4, 60))
    assert b"".join(pieces) == file.raw[44:100]
    assert ([len(piece) for piece in pieces], file.count, file.calls) == ([16, 16, 16, 8], 56, 0)
    assert all(piece.obj is file.raw for piece in pieces)


def test_parts_of_an_excerpt_are_read_alone():
    """Any range of bytes of an excerpt, starting inside a run, is what the same range of its array is."""
    for width in (7, 1000):
        array = numbers((9, 2, width))
        found = region(File(array).leaf, Box((1, 0, 1), (7, 2, width - 3)))
        raw = array[1:8, :, 1 : width - 2].tobytes()
        for start, stop in ((0, len(raw)), (3, 4), (10, len(raw) - 5), (len(raw), len(raw))):
            into = memoryview(bytearray(stop - start))
            found.storage.source.read_into([(found.storage, start, into)])
            assert into == raw[start:stop]
            assert b"".join(found.storage.source.stream(found.storage, start, stop)) == raw[start:stop]


def test_reads_of_one_file_are_one_batch():
    """A batch of reads from excerpts of one file is one batch of reads from the file."""
    file = File(numbers((8, 4)))
    parts = [region(file.leaf, Box((n, 0), (1, 4))) for n in range(8)]
    views = [memoryview(bytearray(16)) for _ in parts]
    source = parts[0].storage.source
    source.read_into([(part.storage, 0, view) for part, view in zip(parts, views)])
    assert (file.calls, b"".join(views)) == (1, file.raw)
    source.verify([part.storage for part in parts])
    assert file.verified == 1


def test_equal_regions_of_one_storage_stay_tied():
    """The same box of the same storage is the same storage; another box is another."""
    leaf = File(numbers((8, 4))).leaf
    box = Box((0, 0), (2, 4))
    assert region(leaf, box).identity == region(leaf, box).identity
    assert region(leaf, box).identity != region(leaf, Box((2, 0), (2, 4))).identity
    assert region(leaf, Box((0, 0), (8, 4))) is leaf


def test_what_is_computed_passes_the_box_down():
    """A cast reads the box of its input only; a function that does not know how computes all of it."""
    file = File(numbers((8, 4)))
    read_array(region(cast_leaf(file.leaf, dtype("float64")), Box((0, 0), (2, 4))))
    assert file.count == 2 * 4 * 4
    whole = computed(file.leaf.spec, [file.leaf], lambda array: array + 1)
    np.testing.assert_array_equal(read_array(region(whole, Box((0, 1), (2, 2)))), numbers((8, 4))[:2, 1:3] + 1)
    assert file.count == 2 * 4 * 4 + 8 * 4 * 4


def test_lazy_bits_stay_with_a_region():
    """A box of a lazily conjugated tensor is conjugated, also through a cast."""
    array = numbers((4, 2)).astype(np.complex64) * (1 + 2j)
    leaf = File(array).leaf
    leaf = Leaf(leaf.spec, leaf.storage, leaf.traits._replace(conj=True))
    box = Box((1, 0), (2, 2))
    for each in (leaf, cast_leaf(leaf, dtype("complex128"))):
        np.testing.assert_array_equal(read_array(region(each, box)), array.conj()[1:3])


def test_a_box_must_lie_in_the_tensor():
    """A box with other dimensions, or beyond the tensor, is refused; so is a tensor that is not strided."""
    leaf = leaf_of(numbers((4, 2)))
    with pytest.raises(ValueError, match=re.escape("a box has 1 dimensions: its shape is [4, 2]")):
        region(leaf, Box((0,), (4,)))
    with pytest.raises(ValueError, match=re.escape("the box [4, 2] at [1, 0] exceeds the tensor: its shape is [4, 2]")):
        region(leaf, Box((1, 0), (4, 2)))
    with pytest.raises(
        TypeError, match=re.escape("a sparse_coo tensor of shape [2] cannot be split into boxes: load it")
    ):
        region(Compound("sparse_coo", FLOAT, (2,), {}), Box((0,), (1,)))


def shard(array, start, count):
    """Some rows of an array, as the value of a tensor of which one process has them."""
    box = Box((start, *(0,) * (array.ndim - 1)), (count, *array.shape[1:]))
    return Parts(FLOAT, array.shape, [Piece(box, leaf_of(array[start : start + count]))], "[Shard(0) of 4]")


def test_parts_tell_the_whole_and_give_what_is_here():
    """The spec is that of the whole tensor; what is here can be had, transposed too, and all else raises PartError."""
    array = numbers((8, 3))
    parts = shard(array, 2, 4)
    assert parts.spec == contiguous(FLOAT, (8, 3))
    assert repr(parts) == "Parts(float32, [8, 3], [Shard(0) of 4])"
    np.testing.assert_array_equal(read_array(region(parts, Box((3, 1), (2, 2)))), array[3:5, 1:])
    turned = Leaf(parts.spec._replace(shape=(3, 8), strides=(1, 3)), parts.storage)
    np.testing.assert_array_equal(read_array(region(turned, Box((1, 3), (2, 2)))), array.T[1:, 3:5])
    text = "only a part of this tensor of shape [8, 3] ([Shard(0) of 4]) is here: [4, 3] at [2, 0]; "
    with pytest.raises(PartError, match=re.escape(text + "its part [4, 3] at [0, 0] is needed")):
        region(parts, Box((0, 0), (4, 3)))
    for use in (parts.whole, lambda: read_array(parts), lambda: read_array(parts, verify=False)):
        with pytest.raises(PartError, match=re.escape(text + "all of it is needed")):
            use()


def test_parts_that_tile_are_an_ordinary_tensor():
    """Pieces that tile the tensor make the whole; one piece that is all of it is that leaf."""
    array = numbers((8, 3))
    parts = Parts(FLOAT, (8, 3), [*shard(array, 0, 5).pieces, *shard(array, 5, 3).pieces], "")
    np.testing.assert_array_equal(read_array(parts.whole()), array)
    whole = shard(array, 0, 8)
    assert whole.whole() is whole.pieces[0].leaf
    whole.storage.source.verify([whole.storage])


def test_joined_pieces_must_tile():
    """Pieces with a gap are refused; a box of joined pieces reads only the pieces that overlap with it."""
    files = [File(numbers((4, 3))), File(numbers((4, 3)))]
    pieces = [Piece(Box((4 * n, 0), (4, 3)), file.leaf) for n, file in enumerate(files)]
    with pytest.raises(PartError, match="only a part of this tensor"):
        join_pieces(FLOAT, (8, 3), pieces[:1])
    whole = join_pieces(FLOAT, (8, 3), pieces)
    np.testing.assert_array_equal(read_array(region(whole, Box((3, 0), (2, 3)))), [[9, 10, 11], [0, 1, 2]])
    assert [file.count for file in files] == [12, 12]
    read_array(region(whole, Box((0, 0), (4, 3))))
    assert [file.count for file in files] == [60, 12]


def test_pieces_can_be_made_when_they_are_needed():
    """The pieces of a tensor that is joined later are made once, when it is first read, and must tile it then."""
    array, made = numbers((8, 3)), []

    def pieces(rows=8):
        made.append(rows)
        return [Piece(Box((at, 0), (4, 3)), File(array[at : at + 4]).leaf) for at in range(0, rows, 4)]

    spec = contiguous(FLOAT, (8, 3))
    leaf = join_later(spec, pieces, "key")
    assert made == []
    np.testing.assert_array_equal(read_array(leaf), array)
    np.testing.assert_array_equal(read_array(region(leaf, Box((3, 1), (2, 2)))), array[3:5, 1:])
    assert made == [8]
    with pytest.raises(PartError, match="only a part of this tensor"):
        read_array(join_later(spec, lambda: pieces(4), "key"))
