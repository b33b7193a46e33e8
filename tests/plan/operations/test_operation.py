"""Operations on tensors: specs first, then leaves with exactly these specs; NumPy is the oracle."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.plan.operations._operation import on_leaves, on_specs, parse_operation, undone
from statedict.state import Box, Leaf, Storage, contiguous, dtype, leaf_of, read_array, region

X = np.arange(24.0).reshape(2, 3, 4)
M = np.arange(12.0).reshape(3, 4)
LONG = np.arange(24.0).reshape(12, 2)

RESULTS = [
    ("transpose", [M], 1, [M.T]),
    ("transpose 0 2", [X], 1, [X.swapaxes(0, 2)]),
    ("transpose -1 -2", [X], 1, [X.swapaxes(-1, -2)]),
    ("permute 2 0 1", [X], 1, [X.transpose(2, 0, 1)]),
    ("split 2", [X], 2, [X[..., :2], X[..., 2:]]),
    ("split -1 1 3", [X], 2, [X[..., :1], X[..., 1:]]),
    ("split 1 1 1 1", [X], 3, [X[:, :1], X[:, 1:2], X[:, 2:]]),
    ("unstack 1", [X], 3, [X[:, 0], X[:, 1], X[:, 2]]),
    ("cat 0", [M, M + 1], 1, [np.concatenate([M, M + 1])]),
    ("cat 1 4 2", [M, M[:, :2]], 1, [np.concatenate([M, M[:, :2]], 1)]),
    ("stack 1", [M, -M], 1, [np.stack([M, -M], 1)]),
    ("squeeze 0", [X[:1]], 1, [X[0]]),
    ("squeeze -1", [X[..., :1]], 1, [X[..., 0]]),
    ("unsqueeze 1", [M], 1, [M[:, None]]),
    ("unsqueeze -1", [M], 1, [M[..., None]]),
    ("unsqueeze 2", [M], 1, [M[..., None]]),
    ("interleave 1", [M], 1, [M[:, [0, 2, 1, 3]]]),
    ("interleave 2 4", [X], 1, [X[..., [0, 2, 1, 3]]]),
    ("deinterleave -1 4", [X], 1, [X[..., [0, 2, 1, 3]]]),
    ("deinterleave 0 6", [LONG], 1, [LONG[[0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]]]),
    ("interleave 0 6", [LONG], 1, [LONG[[0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]]]),
    ("deinterleave 0 2", [LONG], 1, [LONG]),
    ("deinterleave 0", [np.zeros((0, 2))], 1, [np.zeros((0, 2))]),
]


@pytest.mark.parametrize(("text", "inputs", "count", "expected"), RESULTS)
def test_as_numpy(text, inputs, count, expected):
    """Each operation gives NumPy's result, with the specs that it said, dense and untied; its inverse undoes it."""
    operations = [parse_operation(text)]
    assert [str(op) for op in operations] == [text]
    leaves = [leaf_of(array) for array in inputs]
    made = on_leaves(operations, leaves, count)
    specs = on_specs(operations, [leaf.spec for leaf in leaves], count)
    assert [spec.shape for spec in specs] == [leaf.spec.shape for leaf in made] == [array.shape for array in expected]
    assert all(leaf.spec.is_contiguous and leaf.spec.offset == 0 for leaf in made)
    keys = {leaf.storage.key for leaf in made}
    assert len(keys) == len(made)
    assert keys.isdisjoint(leaf.storage.key for leaf in leaves)
    for leaf, array in zip(made, expected):
        assert read_array(leaf).tolist() == array.tolist()
    back = on_leaves(undone(operations), made, len(inputs))
    assert [read_array(leaf).tolist() for leaf in back] == [array.tolist() for array in inputs]


MISFITS = [
    ("transpose", [X], "give the two dimensions"),
    ("transpose 0 3", [X], "no dimension 3"),
    ("permute 0 1", [X], "list each dimension once"),
    ("split 0", [M], "into 2 tensors"),
    ("split 1 3 2", [M], "into 2 tensors"),
    ("split 1 -1 5", [M], "into 2 tensors"),
    ("split 3", [M], "no dimension 3"),
    ("unstack 0", [M], "into 2 tensors"),
    ("cat 0", [M, X], "does not fit"),
    ("cat 0", [M, M.astype("f4")], "does not fit"),
    ("cat 0", [M, M[:1]], "write 'cat 0 3 1'"),
    ("cat 0 1 3", [M, M[:1]], "other sizes"),
    ("cat 2", [M, M], "no dimension 2"),
    ("stack 0", [M, M.T], "does not fit"),
    ("stack 3", [M, M], "does not fit"),
    ("squeeze 0", [M], "the size of dimension 0 is not 1"),
    ("squeeze 2", [M], "no dimension 2"),
    ("unsqueeze 3", [M], "does not fit"),
    ("interleave 0", [M], "groups of 3 entries, or that number is odd"),
    ("deinterleave 1 6", [M], "dimension 1 does not consist of groups of 6 entries"),
    ("deinterleave 1 -2", [M], "groups of -2 entries"),
    ("interleave 2", [M], "no dimension 2"),
]


@pytest.mark.parametrize(("text", "inputs", "message"), MISFITS)
def test_what_does_not_fit_is_refused_on_specs(text, inputs, message):
    """An operation that does not fit is refused before anything is read."""
    with pytest.raises(ValueError, match=message):
        on_specs([parse_operation(text)], [leaf_of(array).spec for array in inputs], 2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "turn 0",
        "cat",
        "split",
        "split x",
        "unstack 0 1",
        "stack",
        "transpose 0",
        "permute",
        "squeeze",
        "interleave 0 1 2",
    ],
)
def test_an_unknown_operation_is_refused(text):
    """The error for an unknown operation lists those that exist."""
    with pytest.raises(ValueError, match="is not a tensor operation; use one of: transpose"):
        parse_operation(text)


def test_parts_read_only_their_own_bytes():
    """One of many parts of a stacked tensor is read without the others."""
    reads = []

    class File:
        def read_into(self, some, *, verify=True):
            reads.extend((start, len(into)) for _, start, into in some)

        def verify(self, storages): ...

        def view(self, storage, *, writable=False):
            return None

    stacked = Leaf(contiguous(dtype("float32"), (128, 10)), Storage(File(), "experts", 128 * 40))
    made = on_leaves([parse_operation("unstack 0")], [stacked], 128)
    read_array(made[5])
    assert reads == [(5 * 40, 40)]


@pytest.mark.parametrize("word", ["interleave", "deinterleave"])
def test_a_part_of_an_interleaved_tensor_reads_only_its_groups(word):
    """Each box of the result is made from the groups that it overlaps with, and equals that box of the whole."""
    reads = []

    class File:
        def read_into(self, some, *, verify=True):
            for _, start, into in some:
                reads.append(len(into))
                into[:] = DATA[start : start + len(into)]

        def verify(self, storages): ...

        def view(self, storage, *, writable=False):
            return None

    DATA = np.arange(128 * 10, dtype="f4").tobytes()
    leaf = Leaf(contiguous(dtype("float32"), (128, 10)), Storage(File(), "wq", len(DATA)))
    (made,) = on_leaves([parse_operation(f"{word} 0 16")], [leaf], 1)
    whole = read_array(made)
    for offsets, sizes in [((0, 0), (1, 10)), ((5, 2), (30, 3)), ((127, 9), (1, 1)), ((16, 0), (16, 10))]:
        reads.clear()
        part = read_array(region(made, Box(offsets, sizes)))
        assert np.array_equal(part, whole[offsets[0] : offsets[0] + sizes[0], offsets[1] : offsets[1] + sizes[1]])
        groups = (offsets[0] + sizes[0] - 1) // 16 - offsets[0] // 16 + 1
        assert sum(reads) <= groups * 16 * 10 * 4


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_undoing_a_chain(shape, data):
    """Any chain of operations, and then what undoes it, gives the same tensor."""
    array = np.arange(np.prod(shape)).reshape(shape)
    dims = list(range(len(shape)))
    chain = [f"permute {' '.join(map(str, data.draw(st.permutations(dims))))}"]
    chain.append(f"transpose {data.draw(st.sampled_from(dims))} {data.draw(st.sampled_from(dims))}")
    operations = [parse_operation(text) for text in chain]
    made = on_leaves(operations, [leaf_of(array)], 1)
    assert read_array(on_leaves(undone(operations), made, 1)[0]).tolist() == array.tolist()


@pytest.mark.parametrize(("text", "shape"), [("reshape 4 6", (4, 6)), ("reshape 2 -1", (2, 12)), ("reshape -1", (24,))])
def test_reshape_is_numpys(text, shape):
    """The same elements in row-major order, also of a transposed tensor; it has no inverse, and says so."""
    operation = parse_operation(text)
    assert str(operation) == text
    for array in (X, X.swapaxes(0, 2)):
        (leaf,) = on_leaves([operation], [leaf_of(array)], 1)
        assert on_specs([operation], [leaf_of(array).spec], 1) == [leaf.spec]
        assert leaf.spec.shape == shape
        assert np.array_equal(read_array(leaf), array.reshape(shape))


def test_reshape_of_one_element():
    """A scalar becomes a vector of one element, and back."""
    (leaf,) = on_leaves([parse_operation("reshape 1")], [leaf_of(np.array(3.0))], 1)
    assert read_array(leaf).tolist() == [3.0]
    (leaf,) = on_leaves([parse_operation("reshape")], [leaf], 1)
    assert read_array(leaf).shape == ()


@pytest.mark.parametrize("text", ["reshape 5", "reshape -1 -1", "reshape -2 12", "reshape 0 -1", "reshape"])
def test_a_reshape_that_does_not_fit(text):
    """Other numbers of elements, and sizes that cannot be told, are refused."""
    with pytest.raises(ValueError, match=r"does not fit shape \[2, 3, 4\], which has 24 elements"):
        on_specs([parse_operation(text)], [leaf_of(X).spec], 1)


@pytest.mark.parametrize(
    "text", ["transpose", "permute 1 0", "deinterleave 0 8", "interleave 1", "transpose | reshape -1"]
)
def test_a_moved_tensor_is_written_a_few_megabytes_at_a_time(text):
    """Beside its input, writing a tensor in another order needs only a few megabytes."""
    array = np.zeros((4096, 4096), "f4")
    (leaf,) = on_leaves([parse_operation(part) for part in text.split("|")], [leaf_of(array)], 1)
    tracemalloc.start()
    for _ in leaf.storage.source.stream(leaf.storage, 0, leaf.storage.nbytes):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < array.nbytes / 3
