"""Models that are defined once and run with either import: each test differs in the import alone."""

import copy
import importlib
import math
import pickle
import sys

import numpy as np
import pytest

import statedict


def names_and_shapes(state):
    return {name: tuple(array.shape) for name, array in state.items()}


def as_numpy(array):
    return np.asarray(array.detach() if hasattr(array, "detach") else array)


def three_linear(nn):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(10, 20)
            self.fc2 = nn.Linear(20, 30)
            self.fc3 = nn.Linear(30, 2)

        def forward(self, x):
            x = nn.functional.relu(self.fc1(x))
            x = nn.functional.relu(self.fc2(x))
            return self.fc3(x)

    return Net


def small_cnn(nn):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 6, 5)
            self.pool = nn.MaxPool2d(2, 2)
            self.conv2 = nn.Conv2d(6, 16, 5)
            self.fc1 = nn.Linear(16 * 5 * 5, 120)
            self.fc2 = nn.Linear(120, 84)
            self.fc3 = nn.Linear(84, 10)

        def forward(self, x):
            x = self.pool(nn.functional.relu(self.conv1(x)))
            x = self.pool(nn.functional.relu(self.conv2(x)))
            x = x.reshape(-1, 16 * 5 * 5)
            x = nn.functional.relu(self.fc1(x))
            x = nn.functional.relu(self.fc2(x))
            return self.fc3(x)

    return Net


def ones_as_gradients(lib, model):
    for parameter in model.parameters():
        parameter.grad = lib.xp.ones(tuple(parameter.shape), dtype=lib.xp.float32)


def test_small_cnn_with_momentum(lib, tmp_path):
    """The tutorial's CNN: table of names, optimizer state before and after a step, save, load, evaluate."""
    model = small_cnn(lib.nn)()
    optimizer = lib.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    assert names_and_shapes(model.state_dict()) == {
        "conv1.weight": (6, 3, 5, 5),
        "conv1.bias": (6,),
        "conv2.weight": (16, 6, 5, 5),
        "conv2.bias": (16,),
        "fc1.weight": (120, 400),
        "fc1.bias": (120,),
        "fc2.weight": (84, 120),
        "fc2.bias": (84,),
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }
    settings = {
        "lr": 0.001,
        "momentum": 0.9,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "maximize": False,
        "foreach": None,
        "differentiable": False,
        "fused": None,
        "params": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    }
    assert optimizer.state_dict() == {"state": {}, "param_groups": [settings]}
    before = as_numpy(model.conv1.bias).copy()
    ones_as_gradients(lib, model)
    optimizer.step()
    state = optimizer.state_dict()["state"]
    assert list(state) == list(range(10))
    assert tuple(state[0]["momentum_buffer"].shape) == (6, 3, 5, 5)
    np.testing.assert_allclose(as_numpy(model.conv1.bias), before - 0.001, rtol=1e-6)

    path = tmp_path / "cnn.pt"
    statedict.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    again = small_cnn(lib.nn)()
    with statedict.open(path) as file:
        statedict.load_state_dict(again, file.state_dict("model"))
        resumed = lib.optim.SGD(again.parameters(), lr=1.0)
        statedict.load_state_dict(resumed, file.object["optimizer"])
    assert resumed.param_groups[0]["momentum"] == 0.9
    again.eval()
    model.eval()
    x = lib.xp.ones((2, 3, 32, 32), dtype=lib.xp.float32)
    assert (as_numpy(model(x)) == as_numpy(again(x))).all()
    for net, steps in ((model, optimizer), (again, resumed)):
        ones_as_gradients(lib, net)
        steps.step()
    assert (as_numpy(model.fc1.weight) == as_numpy(again.fc1.weight)).all()


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoidal_positions_as_a_buffer(lib, width):
    """A position encoding in a buffer is saved, and moves with the model, for even and odd widths."""
    nn, xp = lib.nn, lib.xp

    class Positions(nn.Module):
        def __init__(self, width, length=10):
            super().__init__()
            place = xp.arange(length, dtype=xp.float32)[:, None]
            rate = xp.exp(xp.arange(0, width, 2, dtype=xp.float32) * (-math.log(10000.0) / width))
            table = xp.zeros((length, width), dtype=xp.float32)
            table[:, 0::2] = xp.sin(place * rate)
            table[:, 1::2] = xp.cos(place * rate)[:, : width // 2]
            self.register_buffer("table", table[None])

        def forward(self, x):
            return x + self.table[:, : x.shape[1]]

    model = Positions(width)
    assert names_and_shapes(model.state_dict()) == {"table": (1, 10, width)}
    assert list(model.parameters()) == []
    given = as_numpy(model(xp.zeros((1, 4, width), dtype=xp.float32)))
    assert given[0, 0].tolist() == [0.0, 1.0] * (width // 2) + [0.0] * (width % 2)
    np.testing.assert_allclose(given[0, 3, 0], math.sin(3), rtol=1e-6)
    assert model.half().table.dtype == xp.float16


def test_a_snapshot_stays_where_a_state_dict_follows(lib):
    """A state dict shows later training; a snapshot and a deep copy do not."""
    model = three_linear(lib.nn)()
    live, snapshot, copied = model.state_dict(), statedict.snapshot(model), copy.deepcopy(model.state_dict())
    before = as_numpy(model.fc1.bias).copy()
    ones_as_gradients(lib, model)
    lib.optim.SGD(model.parameters(), lr=0.5).step()
    assert (as_numpy(live["fc1.bias"]) == as_numpy(model.fc1.bias)).all()
    assert (as_numpy(model.fc1.bias) != before).all()
    assert (as_numpy(snapshot["fc1.bias"]) == before).all()
    assert (as_numpy(copied["fc1.bias"]) == before).all()


def test_a_whole_module_opens_without_its_class(lib, tmp_path, monkeypatch):
    """A pickle of a whole module gives its state on a machine that does not have the module's class."""
    (tmp_path / f"their_{lib.name}.py").write_text(
        f"from {'torch' if lib.name == 'torch' else 'statedict'} import nn\n"
        f"import {lib.xp.__name__} as xp\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(3, 2)\n"
        "        self.norm = nn.BatchNorm1d(2)\n"
        "        self.register_buffer('unsaved', xp.zeros(3), persistent=False)\n"
        "        self.register_buffer('bare', xp.zeros(3))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = importlib.import_module(f"their_{lib.name}").Net()
    path = tmp_path / "whole.pkl"
    path.write_bytes(pickle.dumps(model))
    del sys.modules[f"their_{lib.name}"]
    monkeypatch.setattr(sys, "path", sys.path[1:])
    with statedict.open(path) as file:
        state = file.state_dict()
        assert list(state) == list(model.state_dict())
        assert (as_numpy(state.numpy()["fc.weight"]) == as_numpy(model.fc.weight)).all()
        assert {k: v["version"] for k, v in state._metadata.items()} == {"": 1, "fc": 1, "norm": 2}
