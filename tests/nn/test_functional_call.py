"""Calling a module with other arrays than its own."""

import numpy as np
import pytest

from statedict import nn
from statedict.errors import UnknownNameError


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def given(model, factor=0.0):
    return {name: array * factor for name, array in model.named_parameters()}


def test_other_arrays_are_used_and_the_module_is_as_before():
    """The given parameters and buffers are used for one call, and the module has its own again afterwards."""
    model, x = net(), np.ones((4, 2), np.float32)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    weight = model[0].weight
    result = nn.functional_call(model, given(model) | {"1.bias": np.full(3, 5, np.float32)}, (x,))
    assert (result == 5).all()
    assert model[0].weight is weight
    after = model.state_dict()
    assert all((before[name] == after[name]).all() for name, _ in model.named_parameters())
    # Written in place by BatchNorm, as in PyTorch.
    assert after["1.num_batches_tracked"] == 1


def test_buffers_that_the_call_replaces_come_back():
    """A buffer that was given is replaced for the call only, bare or held."""
    module = nn.Module()
    module.register_buffer("bare", np.ones(2))
    module.held = nn.Buffer(np.ones(2))
    module.forward = lambda x: x + module.bare + module.held
    bare = module.bare
    result = nn.functional_call(module, {"bare": np.zeros(2), "held": np.full(2, 3.0)}, np.zeros(2))
    assert result.tolist() == [3, 3]
    assert module.bare is bare
    assert module.held.data.tolist() == [1, 1]


def test_arguments():
    """A single argument need not be a tuple, keyword arguments are passed on, and several mappings are joined."""
    module = nn.Identity()
    assert nn.functional_call(module, {}, 3) == 3
    assert nn.functional_call(module, [{}, {}], None, {"input": 4}) == 4
    layer = nn.Linear(1, 1)
    parts = [{"weight": np.full((1, 1), 2.0)}, {"bias": np.ones(1)}]
    assert nn.functional_call(layer, parts, (np.ones((1, 1)),)).tolist() == [[3.0]]
    with pytest.raises(ValueError, match="weight appears in multiple dictionaries"):
        nn.functional_call(layer, [parts[0], parts[0]], (np.ones((1, 1)),))


def test_the_module_is_as_before_when_the_call_raises():
    """An exception of the call leaves the module as it was."""
    layer = nn.Linear(2, 2)
    array = layer.weight.data
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        nn.functional_call(layer, {"weight": np.zeros((2, 5))}, (np.ones((1, 2)),))
    assert layer.weight.data is array


def test_names():
    """Unknown names raise and say what is near; `strict` wants all of them."""
    layer = nn.Linear(2, 2)
    with pytest.raises(UnknownNameError, match="'weigth' is not in the module; did you mean 'weight'"):
        nn.functional_call(layer, {"weigth": np.zeros((2, 2))}, (np.ones((1, 2)),))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'bias'"):
        nn.functional_call(layer, {"weight": np.zeros((2, 2))}, (np.ones((1, 2)),), strict=True)


def test_ties():
    """An array for one name of a tied parameter is used under all of them; two different ones need `tie_weights=False`."""
    layer = nn.Linear(1, 1, bias=False)
    model = nn.Sequential(layer, nn.Linear(1, 1, bias=False))
    model[1].weight = layer.weight
    two, three, x = np.full((1, 1), 2.0), np.full((1, 1), 3.0), (np.ones((1, 1)),)
    assert nn.functional_call(model, {"0.weight": two}, x) == 4
    assert nn.functional_call(model, {"0.weight": two, "1.weight": two}, x) == 4
    with pytest.raises(ValueError, match="functional_call got multiple values for keys"):
        nn.functional_call(model, {"0.weight": two, "1.weight": three}, x)
    assert nn.functional_call(model, {"0.weight": two, "1.weight": three}, x, tie_weights=False) == 6
    assert model[0].weight is model[1].weight is layer.weight
