"""A part of a tensor is never loaded as the tensor."""

from __future__ import annotations

import re

import pytest
import torch

import statedict
from statedict.state import Box, Parts, Piece, dtype, leaf_of


def parts(*rows):
    """A tensor of 4 × 2 of which some rows are here."""
    pieces = [Piece(Box((row, 0), (1, 2)), leaf_of(torch.full((1, 2), float(row + 1)))) for row in rows]
    return Parts(dtype("float32"), (4, 2), pieces, "[Shard(0) of 2]")


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_part_is_refused_before_anything_is_read(assign, dry_run):
    """A model that is not sharded needs all of a tensor; a dry run says so too."""
    model = torch.nn.Linear(2, 4, bias=False)
    before = model.weight.detach().clone()
    state = {"weight": parts(0, 1)}
    text = re.escape(
        "only a part of this tensor of shape [4, 2] ([Shard(0) of 2]) is here: [1, 2] at [0, 0], [1, 2] at [1, 0]"
    )
    if dry_run:
        report = statedict.load_state_dict(model, state, assign=assign, dry_run=True)
        assert re.search(text, str(report.errors))
    else:
        with pytest.raises(statedict.errors.LoadError, match=text):
            statedict.load_state_dict(model, state, assign=assign)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("assign", [False, True])
def test_parts_that_tile_are_loaded(assign):
    """Parts that are all here are an ordinary tensor."""
    model = torch.nn.Linear(2, 4, bias=False)
    assert statedict.load_state_dict(model, {"weight": parts(0, 1, 2, 3)}, assign=assign).ok
    assert model.weight.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
