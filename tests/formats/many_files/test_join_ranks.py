"""The trees of several ranks as one tree."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from statedict.errors import FormatError, PartError
from statedict.formats import Box, LocalBox, join_ranks, part_at
from statedict.state import Leaf, Parts, leaf_of, read_array

WHOLE = np.arange(12.0).reshape(6, 2)


def part(start, stop, array=WHOLE, shape=None):
    """The rows `start … stop` of a tensor, as one rank has them."""
    rows = array[start:stop]
    sizes = rows.shape
    boxes = [LocalBox(Box((start, 0), sizes), Box((0, 0), sizes))]
    return part_at(leaf_of(rows.copy()), shape or array.shape, boxes, "rows", where="folder")


def test_parts_are_joined_and_other_values_are_of_the_first_rank():
    """Names that only another rank has are kept, as pipeline parallelism needs it."""
    one = {"w": part(0, 4), "step": 3, "groups": [{"lr": 0.1, "m": part(0, 3)}]}
    other = {"w": part(4, 6), "step": 4, "groups": [{"lr": 0.2, "m": part(3, 6)}], "late": {"v": part(0, 6)}}
    found = join_ranks([one, other], "folder")
    assert list(found) == ["w", "step", "groups", "late"]
    assert (found["step"], found["groups"][0]["lr"]) == (3, 0.1)
    for leaf in (found["w"], found["groups"][0]["m"], found["late"]["v"]):
        assert np.array_equal(read_array(leaf), WHOLE)


def test_attributes_of_containers_are_kept():
    """Such as the `_metadata` of a state dict."""
    state = OrderedDict(w=part(0, 6))
    state._metadata = {"": {"version": 2}}
    found = join_ranks([state, OrderedDict(w=part(0, 6))], "folder")
    assert (type(found), found._metadata) == (OrderedDict, {"": {"version": 2}})


def test_shared_values_stay_shared_and_cycles_end():
    """A container that contains itself, and one in two places."""
    trees = [{"a": {"w": part(0, 3)}}, {"a": {"w": part(3, 6)}}]
    for tree in trees:
        tree["b"], tree["self"] = tree["a"], tree
    found = join_ranks(trees, "folder")
    assert found["b"] is found["a"]
    assert found["self"] is found
    assert type(found["a"]["w"]) is Leaf


def test_lists_of_different_lengths_are_those_of_the_first_rank():
    """Lists of different lengths are those of the first rank, because their items do not correspond."""
    assert join_ranks([{"l": [1]}, {"l": [2, 3]}], "folder") == {"l": [1]}


def test_a_missing_part_can_be_told_from_one_that_overlaps():
    """The first stays Parts, the second is refused."""
    found = join_ranks([{"w": part(0, 2)}, {"w": part(3, 6)}], "folder")
    assert isinstance(found["w"], Parts)
    with pytest.raises(PartError):
        read_array(found["w"])
    for others in ((part(1, 4),), (part(1, 4), part(5, 6)), (part(0, 5), part(4, 6))):
        with pytest.raises(FormatError, match="folder: w: its parts overlap"):
            join_ranks([{"w": value} for value in (part(0, 2), *others)], "folder")


def test_parts_of_different_tensors_are_refused():
    """Parts of tensors that differ in dtype or shape are refused."""
    for other in (part(3, 6, WHOLE.astype(np.float32)), part(3, 6, shape=(7, 2))):
        with pytest.raises(FormatError, match=r"its parts (differ in dtype|belong to tensors of different shapes)"):
            join_ranks([{"w": part(0, 3)}, {"w": other}], "folder")


def test_a_rank_may_have_no_elements():
    """A rank without elements of a tensor has an empty box of it."""
    empty = part_at(leaf_of(np.empty((0, 2))), (6, 2), [], "rows")
    assert np.array_equal(read_array(join_ranks([{"w": empty}, {"w": part(0, 6)}], "folder")["w"]), WHOLE)


def test_a_box_beyond_the_local_tensor_is_refused():
    """`part_at` checks what it is given."""
    with pytest.raises(ValueError, match="exceeds the tensor"):
        part_at(leaf_of(WHOLE), (12, 2), [LocalBox(Box((0, 0), (7, 2)), Box((0, 0), (7, 2)))], "rows")
