"""Containers behave as PyTorch's: each test differs in the import alone."""

from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest


def linears(nn, *widths):
    return [nn.Linear(a, b) for a, b in pairwise(widths)]


def test_sequential(lib):
    """Modules by number or name, called in turn; lists' habits work."""
    nn = lib.nn
    first, second = linears(nn, 2, 3, 4)
    net = nn.Sequential(first, nn.ReLU(), second)
    assert tuple(net(lib.xp.ones((1, 2), dtype=lib.xp.float32)).shape) == (1, 4)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert net[0] is first
    assert net[-1] is second
    assert len(net[1:]) == 2
    assert list(net[1:].state_dict()) == ["2.weight", "2.bias"]
    del net[1]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    net.insert(1, nn.Tanh())
    net.append(nn.Identity())
    net.extend(nn.Sequential(nn.ReLU()))
    assert [type(module).__name__ for module in net] == ["Linear", "Tanh", "Linear", "Identity", "ReLU"]
    assert type(net.pop(-1)).__name__ == "ReLU"
    net[0] = nn.Identity()
    assert type(net[0]).__name__ == "Identity"
    named = nn.Sequential(OrderedDict([("in", first), ("out", second)]))
    assert [name for name, _ in named.named_children()] == ["in", "out"]
    assert len(nn.Sequential(first) + nn.Sequential(second)) == 2
    assert len(2 * nn.Sequential(first, second)) == 4
    doubled = nn.Sequential(first)
    doubled *= 3
    doubled += nn.Sequential(second)
    assert [module is first for module in doubled] == [True, True, True, False]


def test_module_list(lib):
    """A list of modules: numbered names, slices, insertion, addition."""
    nn = lib.nn
    layers = nn.ModuleList(linears(nn, 1, 2, 3, 4))
    assert list(layers.state_dict()) == [f"{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    assert len(layers[1:]) == 2
    layers.insert(1, nn.ReLU())
    assert [type(m).__name__ for m in layers] == ["Linear", "ReLU", "Linear", "Linear"]
    del layers[0:2]
    assert len(layers) == 2
    layers += [nn.Tanh()]
    assert type(layers.pop(2)).__name__ == "Tanh"
    layers[0] = nn.Identity()
    assert len(layers + nn.ModuleList([nn.ReLU()])) == 3
    assert list(nn.ModuleList().state_dict()) == []
    assert not any(name.isdigit() for name in dir(layers))


def test_module_dict(lib):
    """A dictionary of modules: in the order in which they came, replaced where they are."""
    nn = lib.nn
    table = nn.ModuleDict({"b": nn.Linear(1, 2), "a": nn.ReLU()})
    table["c"] = nn.Tanh()
    table.update([["d", nn.Identity()]])
    assert list(table) == list(table.keys()) == ["b", "a", "c", "d"]
    assert "a" in table
    assert len(table) == 4
    assert type(table.pop("a")).__name__ == "ReLU"
    del table["c"]
    assert [name for name, _ in table.items()] == ["b", "d"]
    assert len(list(table.values())) == 2
    table.clear()
    assert len(table) == 0


def test_parameter_list(lib):
    """A list of parameters: tensors become Parameters, other values stay plain."""
    nn, xp = lib.nn, lib.xp
    values = nn.ParameterList([nn.Parameter(xp.ones((2, 3))), xp.zeros((2,)), "text"])
    assert [name for name, _ in values.named_parameters()] == ["0", "1"]
    assert isinstance(values[1], nn.Parameter)
    assert values[-1] == "text"
    values.append(xp.ones((1,)))
    values += [xp.ones((4,))]
    values[2] = xp.ones((5,))
    assert [tuple(p.shape) for p in values] == [(2, 3), (2,), (5,), (1,), (4,)]
    assert len(values[1:3]) == 2
    # "2" became a parameter after the others.
    assert list(values.state_dict()) == ["0", "1", "3", "4", "2"]


def test_parameter_dict(lib):
    """A dictionary of parameters with a dictionary's habits; a plain dict's names are sorted."""
    nn, xp = lib.nn, lib.xp
    table = nn.ParameterDict({"b": xp.ones((1,)), "a": xp.ones((2,))})
    assert list(table.state_dict()) == ["a", "b"]
    table["c"] = xp.zeros((3,))
    assert isinstance(table["c"], nn.Parameter)
    assert table.get("none") is None
    assert table.setdefault("d", xp.ones((4,))).shape == (4,)
    assert list(reversed(table)) == ["d", "c", "b", "a"]
    both = table | nn.ParameterDict([("e", xp.ones((5,)))])
    assert list(both.keys()) == ["a", "b", "c", "d", "e"]
    assert both.popitem()[0] == "e"
    assert tuple(both.pop("a").shape) == (2,)
    del both["b"]
    both.update(OrderedDict(z=xp.ones((1,)), y=xp.ones((1,))))
    assert list(both) == ["c", "d", "z", "y"]
    assert "z" in both
    assert len(both.copy()) == 4
    assert [tuple(v.shape) for v in both.values()] == [(3,), (4,), (1,), (1,)]
    both.clear()
    assert len(both) == 0
    assert list(table.fromkeys(["p", "q"], 1.0).items()) == [("p", 1.0), ("q", 1.0)]


def test_reprs(both):
    """Containers print as PyTorch's do: nested, numbered, and equal neighbours once."""
    texts = set()
    for lib in both:
        nn, xp = lib.nn, lib.xp
        net = nn.Sequential(
            OrderedDict(
                blocks=nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3)] + [nn.Tanh()]),
                table=nn.ModuleDict({"x": nn.Conv2d(1, 2, 3, padding=1, bias=False), "none": nn.Identity()}),
                empty=nn.ModuleList(),
                values=nn.ParameterList([xp.zeros((2, 3), dtype=xp.float32), "text", 3]),
                named=nn.ParameterDict({"a": xp.zeros((2,), dtype=xp.float64), "b": None}),
            )
        )
        texts.add(repr(net))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda nn, xp: nn.Sequential(nn.ReLU())[1],
        lambda nn, xp: nn.Sequential(3),
        lambda nn, xp: nn.Sequential() + [nn.ReLU()],
        lambda nn, xp: nn.Sequential() * 0,
        lambda nn, xp: nn.Sequential() * "x",
        lambda nn, xp: nn.Sequential().insert(5, nn.ReLU()),
        lambda nn, xp: nn.Sequential().insert(0, 3),
        lambda nn, xp: nn.ModuleList().extend(3),
        lambda nn, xp: nn.ModuleList([3]),
        lambda nn, xp: nn.ModuleList([nn.ReLU()])[1],
        lambda nn, xp: nn.ModuleList()(1),
        lambda nn, xp: nn.ModuleDict({"a.b": nn.ReLU()}),
        lambda nn, xp: nn.ModuleDict(3),
        lambda nn, xp: nn.ModuleDict([("a",)]),
        lambda nn, xp: nn.ModuleDict({"a": nn.ReLU()})["b"],
        lambda nn, xp: nn.ParameterList()(1),
        lambda nn, xp: nn.ParameterList().extend(xp.zeros((2,))),
        lambda nn, xp: nn.ParameterList([xp.zeros((2,))])[1],
        lambda nn, xp: nn.ParameterDict()(1),
        lambda nn, xp: nn.ParameterDict()[3],
        lambda nn, xp: nn.ParameterDict(3),
    ],
)
def test_what_is_refused(both, raised, act):
    """Mistakes raise PyTorch's errors, with its texts."""
    found = [raised(lambda lib=lib: act(lib.nn, lib.xp)) for lib in both]
    assert found[0][0] == found[1][0]
    # Up to where the classes' own names come.
    texts = {text.split("<class")[0].split(", but got Tensor")[0].split(", but got ndarray")[0] for _, text in found}
    assert len(texts) == 1


def test_arrays_of_numpy_scalars_are_no_parameters():
    """A ParameterList of plain numbers holds numbers."""
    from statedict import nn

    assert [type(v) for v in nn.ParameterList([1.5, np.ones(1)])] == [float, nn.Parameter]
