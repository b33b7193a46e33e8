"""Operations of rules pass a box of their result down to their inputs, and read no more of these than it needs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from statedict.errors import PartError
from statedict.plan import match
from statedict.plan.operations._operation import on_leaves, parse_operation
from statedict.state import (
    Box,
    Leaf,
    Parts,
    Piece,
    Storage,
    contiguous,
    dtype,
    excerpt,
    leaf_of,
    raw_values,
    read_array,
    region,
)


class File:
    """A Source of one array in a file, which counts the bytes read."""

    def __init__(self, array):
        self.raw = array.tobytes()
        self.leaf = Leaf(contiguous(dtype(str(array.dtype)), array.shape), Storage(self, id(self), len(self.raw)))
        self.count = 0

    def read_into(self, reads, *, verify=True):
        for _, start, into in reads:
            into[:] = self.raw[start : start + len(into)]
            self.count += len(into)

    def verify(self, storages):
        pass

    def view(self, storage, *, writable=False):
        return None

    def part(self, leaf):
        return excerpt(leaf)


RULES = [
    ("a", 1, "transpose", Box((3, 0), (3, 8)), 4.0),
    ("a", 1, "permute 1 0", Box((3, 2), (3, 2)), 4.0),
    ("a", 1, "reshape 4 24", Box((1, 0), (1, 24)), 1.0),
    ("a", 1, "reshape 2 4 3 4", Box((1, 1, 0, 0), (1, 2, 3, 4)), 1.0),
    ("a", 1, "transpose, reshape 96", Box((8,), (8,)), 12.0),
    ("abc", 1, "cat 0", Box((6, 0), (4, 12)), 1.0),
    ("abc", 1, "cat 0 8 8 8", Box((2, 3), (20, 2)), 6.0),
    ("abc", 1, "cat 1", Box((1, 10), (3, 20)), 3.0),
    ("abc", 1, "cat -1, transpose", Box((10, 1), (20, 3)), 3.0),
    ("abc", 1, "stack 0", Box((1, 2, 0), (1, 3, 12)), 1.0),
    ("abc", 1, "stack 1", Box((2, 1, 0), (3, 2, 12)), 1.0),
    ("a", 2, "split 0", Box((1, 0), (2, 12)), 1.0),
    ("a", 2, "split 1, transpose", Box((1, 0), (2, 8)), 6.0),
    ("a", 2, "split 0 2 6, reshape -1", Box((4,), (12,)), 1.0),
]


@pytest.mark.parametrize(("names", "count", "operations", "box", "most"), RULES)
def test_a_box_of_an_operation_reads_its_part_of_the_inputs(names, count, operations, box, most):
    """A box of the result has the elements of NumPy's slice, and reads at most so many times its bytes."""
    files = [File(np.arange(96, dtype=np.float32).reshape(8, 12) + n) for n in range(len(names))]
    parsed = [parse_operation(text) for text in operations.split(", ")]
    for leaf in on_leaves(parsed, [file.leaf for file in files], count):
        whole = read_array(leaf)
        for file in files:
            file.count = 0
        found = region(leaf, box)
        np.testing.assert_array_equal(read_array(found), whole[tuple(slice(a, a + n) for a, n in zip(*box))])
        assert sum(file.count for file in files) <= most * found.spec.nbytes


@pytest.mark.parametrize("shape", [(8, 12), (10, 14), (5, 20), (6, 7), (11, 3)])
@pytest.mark.parametrize("box", [Box((0, 0), (5, 3)), Box((4, 1), (1, 2)), Box((1, 0), (4, 3))])
def test_a_box_of_a_sliced_tensor_is_laid_over_the_same_box_of_the_slot(shape, box):
    """The policy "slice" makes a box from the same box of the source and of the slot's own values."""
    file = File(np.arange(96, dtype=np.float32).reshape(8, 12))
    slot = -np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    plan = match({"x": file.leaf}, {"x": slot}, mismatched="slice")
    leaf = raw_values(plan.execute({"x": file.leaf}))["x"]
    whole = read_array(leaf)
    file.count = 0
    found = read_array(region(leaf, box))
    np.testing.assert_array_equal(found, whole[tuple(slice(a, a + n) for a, n in zip(*box))])
    assert file.count <= 12 * 5 * 4


def test_a_function_for_other_shapes_needs_the_whole_slot():
    """A function that is given the slot's own values cannot be given a part of them."""
    slot = Parts(dtype("float32"), (4, 2), [Piece(Box((0, 0), (2, 2)), leaf_of(np.ones((2, 2), np.float32)))], "[half]")
    plan = match({"x": np.zeros((3, 2), np.float32)}, {"x": slot}, mismatched=lambda source, target: target)
    leaf = raw_values(plan.execute({"x": np.zeros((3, 2), np.float32)}))["x"]
    with pytest.raises(PartError, match=re.escape("only a part of this tensor of shape [4, 2] ([half]) is here")):
        region(leaf, Box((0, 0), (2, 2)))
