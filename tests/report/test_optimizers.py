"""Optimizer states: parameter names in the place of indices, where the file has them and they are unambiguous."""

import io

import numpy as np
import pytest
import torch

import statedict
from statedict.report._optimizers import noun, parameter_labels
from statedict.report._survey import survey
from statedict.state import StateDict


def trained(named):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.named_parameters() if named else model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    return statedict.open(file).roots["optimizer"]


def test_names_of_torch():
    """An optimizer that was made of named parameters shows these names; one of parameters only shows indices."""
    labels = parameter_labels(trained(named=True))
    assert labels["state.0.exp_avg"] == "state.0.weight.exp_avg"
    assert labels["state.3.step"] == "state.1.bias.step"
    assert parameter_labels(trained(named=False)) == {}


@pytest.mark.parametrize(
    "groups",
    [
        7,
        "text",
        [1, None],
        [{"params": 5, "param_names": ["a"]}],
        [{"params": [0, 1], "param_names": ["a"]}],
        [{"params": [True, "0"], "param_names": ["a", "b"]}],
        [{"params": [0], "param_names": [3]}],
        [{"params": [0, 1], "param_names": ["a", "a"]}],
        [{"params": [0], "param_names": ["1"]}],
    ],
)
def test_what_a_file_may_hold_instead(groups):
    """Invalid groups, and those that would give two tensors one name, do not change names."""
    state = StateDict({"state.0.m": np.ones(1), "state.1.m": np.ones(1), "param_groups": groups})
    assert parameter_labels(state) == {}


def test_what_elements_are_called():
    """The elements of a model are parameters, those of an optimizer or a random generator are not."""
    for state, word in (
        (trained(named=True), "element"),
        (StateDict({"state": np.ones(624, np.uint32), "pos": 1}), "element"),
        (StateDict({"w": np.ones(1), "step": 1}), "parameter"),
    ):
        found = survey(state)
        assert noun(found.tensors, found.values) == word
