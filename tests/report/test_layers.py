"""A layer's change: that of all its elements as one vector."""

from math import inf

import numpy as np
import pytest

import statedict
from statedict.report import survey
from statedict.report._content import layers
from statedict.state import StateDict


def changed(before, after):
    state = StateDict(before)
    measured = survey(state)
    by_name = {fact["name"]: m for fact, m in zip(measured.tensors, measured.measures)}
    return layers(statedict.diff(state, StateDict(after)), by_name)


def test_tensors_of_a_layer_are_one_vector():
    """The relative change of a layer is that of its tensors laid end to end; layers come in the order of their names."""
    rng = np.random.default_rng(0)
    before = {f"{layer}.{name}": rng.normal(1, 2, size) for layer in "ab" for name, size in (("w", (9, 7)), ("b", 7))}
    after = before | {"b.w": before["b.w"] + 0.1, "b.b": before["b.b"] * 3}
    joined = [np.concatenate([state["b.w"].reshape(-1), state["b.b"]]) for state in (before, after)]
    first, second = changed(before, after)
    assert first == ("a", 0.0, 0, 2)
    assert second.relative == pytest.approx(np.linalg.norm(joined[1] - joined[0]) / np.linalg.norm(joined[0]))
    assert second[2:] == (2, 2)


def test_what_cannot_be_compared_does_not_count():
    """Tensors of other shapes, and those that one state lacks, are in no layer."""
    before = {"a.w": np.ones(3), "a.b": np.ones(2), "gone": np.ones(2)}
    after = {"a.w": np.ones(4), "a.b": np.ones(2), "new": np.ones(2)}
    assert changed(before, after) == [("a", 0.0, 0, 1)]


def test_from_nothing():
    """A layer of zeros has changed infinitely; beside other tensors, one that was zero counts by its norm."""
    before = {"a.w": np.zeros(3), "b.w": np.zeros(4), "b.b": np.ones(4), "z.w": np.zeros(3), "top": np.ones(2)}
    found = changed(before, before | {"a.w": np.ones(3), "b.w": np.ones(4) / 2})
    assert [(layer.name, layer.relative) for layer in found] == [("a", inf), ("b", 0.5), ("z", 0.0), ("", 0.0)]
