"""Whether the parts of one tensor that wraps others fit another."""

from __future__ import annotations

import numpy as np

from statedict.formats.torch_archive import take_apart
from statedict.state import DTYPES, leaf_of
from statedict.torch.tensors._wrapper import misfit

OUTER = (DTYPES["float32"], (2,), (1,), 0, "strided")


def part():
    return leaf_of(np.ones(2, "i1"))


def taken(state):
    return take_apart("mine:Wrapped", OUTER, False, state)


def test_misfits():
    """Whether one tensor's parts can be copied into another's is told in words."""
    model = taken({"x": part(), "bits": 4, "extra": None})
    assert misfit(model, taken({"x": part(), "bits": 4})) is None
    assert misfit(model, taken({"x": part(), "bits": 8})) == (
        "it was made in another way: 'bits' are not the same in the model"
    )
    assert "only one of them has y" in misfit(model, taken({"x": part(), "y": part()}))
    other = taken({"x": leaf_of(np.ones(3, "i2")), "bits": 4})
    assert misfit(model, other) == "its part 'x' is int8 [2] in the model and int16 [3] in the checkpoint"
    renamed = take_apart("mine:Other", OUTER, False, {"x": part()})
    assert misfit(model, renamed) == "the model has a mine.Wrapped and the checkpoint a mine.Other"
    larger = take_apart("mine:Wrapped", (OUTER[0], (3,), *OUTER[2:]), False, {"x": part()})
    assert "float32 [2], and the checkpoint one of float32 [3]" in misfit(model, larger)
