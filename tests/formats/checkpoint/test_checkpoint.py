"""What an open checkpoint offers."""

import io
import re

import numpy as np
import pytest

import statedict


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("model", "checkpoint.state_dict('model')"),
        ("head.weight", "checkpoint.state_dict('model')['head.weight']"),
        ("epoch", "checkpoint.object['epoch']"),
        ("absent", "checkpoint.state_dict() for tensors by name, and checkpoint.object for everything that was saved"),
    ],
)
def test_a_subscript_says_what_to_use(name, way):
    """A subscript raises a TypeError with the expression that returns what has this name."""
    file = io.BytesIO()
    statedict.save({"model": {"head.weight": np.ones(2)}, "epoch": 3}, file)
    file.seek(0)
    with statedict.open(file) as checkpoint:
        with pytest.raises(TypeError, match=f"^a Checkpoint is not a mapping; use {re.escape(way)}$"):
            checkpoint[name]
        if name != "absent":
            eval(way)  # noqa: S307
