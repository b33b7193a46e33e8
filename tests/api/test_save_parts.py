"""Tensors in parts, of which this process has only some elements, in verbs that need all of them."""

from __future__ import annotations

import numpy as np
import pytest

import statedict
from statedict.cli._progress import counted
from statedict.errors import PartError
from statedict.report import tensors
from statedict.state import Box, Parts, Piece, StateDict, dtype, leaf_of, read_array, region

WHOLE = np.arange(12, dtype="float32").reshape(4, 3)


def parts(*rows):
    """The tensor WHOLE, of which the given rows are here."""
    pieces = [Piece(Box((row, 0), (1, 3)), leaf_of(WHOLE[row : row + 1])) for row in rows]
    return Parts(dtype("float32"), (4, 3), pieces, "[Shard(0) of 4]")


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_saving_a_part_names_the_tensor(tmp_path, suffix):
    """A tensor of which elements are missing is not saved, and the error names it."""
    with pytest.raises(
        PartError, match=r"^b: only a part of this tensor of shape \[4, 3\] \(\[Shard\(0\) of 4\]\) is here"
    ):
        statedict.save({"a": parts(0, 1, 2, 3), "b": parts(1)}, tmp_path / f"m.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npz"])
def test_all_parts_are_saved_as_the_whole(tmp_path, suffix):
    """A tensor whose parts are all here is saved as one process saves the whole."""
    statedict.save({"a": parts(3, 1, 0, 2)}, tmp_path / f"parts.{suffix}")
    statedict.save({"a": leaf_of(WHOLE)}, tmp_path / f"whole.{suffix}")
    assert (tmp_path / f"parts.{suffix}").read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_a_name_inside_a_tree_is_its_path(tmp_path):
    """In a nested tree the error names the path to the tensor."""
    with pytest.raises(PartError, match=r"^model/1/a: only a part"):
        statedict.save({"model": [1, {"a": parts(2)}]}, tmp_path / "m.pt")


def test_a_comparison_is_of_the_parts_that_are_here():
    """Each process compares the elements that it has; those of the other side are found in a whole or the same part."""
    other = WHOLE.copy()
    other[1, 2] += 1
    other[3] += 5
    assert statedict.diff({"a": parts(0, 1)}, {"a": other}).changed["a"][:3] == (6, 1, 1.0)
    assert statedict.diff({"a": other}, {"a": parts(1)}).changed["a"][:3] == (3, 1, 1.0)
    assert not statedict.diff({"a": parts(0, 2)}, {"a": other})
    assert not statedict.diff({"a": parts(2, 1)}, {"a": parts(2, 1)})
    assert not statedict.diff({"a": parts()}, {"a": other})


def test_a_comparison_with_a_part_that_is_not_here_names_the_tensor():
    """Parts that only one side has cannot be compared; the error says what to do."""
    with pytest.raises(PartError, match=r"^a: .*save both, and compare the files"):
        statedict.diff({"a": parts(1)}, {"a": parts(2)})


def test_facts_tell_the_boxes_that_are_here():
    """What a file has of a larger tensor is told, the first pieces of many."""
    facts = tensors(StateDict({"a": parts(1), "b": parts(0, 1, 2, 3), "c": leaf_of(WHOLE)}))
    assert [fact.get("part") for fact in facts] == [
        "[1, 3] at [1, 0]",
        "[1, 3] at [0, 0]; [1, 3] at [1, 0]; [1, 3] at [2, 0]; …",
        None,
    ]


def test_a_progress_bar_counts_regions(tmp_path):
    """A region of a counted tensor reads and counts its own bytes only."""
    statedict.save({"a": WHOLE}, tmp_path / "m.safetensors")
    ticks = []
    with statedict.open(tmp_path / "m.safetensors") as checkpoint:
        shown = counted(checkpoint.state_dict(), ticks.append)
        box = region(shown.leaf("a"), Box((1, 0), (2, 3)))
        assert np.array_equal(read_array(box, verify=False), WHOLE[1:3])
    assert sum(ticks) == 24
    kept = counted(StateDict({"a": parts(1)}), ticks.append)
    assert isinstance(kept.leaf("a"), Parts)
