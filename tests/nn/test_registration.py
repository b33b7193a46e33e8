"""Registration: rules, order of checks and texts of errors are PyTorch's."""

import numpy as np
import pytest

from statedict import nn


def prepared(lib):
    """A module with one of each kind, and things to register."""
    nn_, xp = lib.nn, lib.xp
    module = nn_.Module()
    module.weight = nn_.Parameter(xp.ones((2,)))
    module.register_buffer("seen", xp.zeros((2,)))
    module.register_buffer("passing", xp.zeros((2,)), persistent=False)
    module.child = nn_.ReLU()
    module.plain = 3
    return module


class Text(str):
    """A string that is no plain one."""


@pytest.mark.parametrize(
    "act",
    [
        lambda m, lib: m.register_parameter(3, None),
        lambda m, lib: m.register_parameter("a.b", None),
        lambda m, lib: m.register_parameter("", None),
        lambda m, lib: m.register_parameter("child", None),
        lambda m, lib: m.register_parameter("plain", None),
        lambda m, lib: m.register_parameter("forward", None),
        lambda m, lib: m.register_parameter("new", "text"),
        lambda m, lib: m.register_parameter("new", lib.nn.ReLU()),
        lambda m, lib: m.register_buffer(3, None),
        lambda m, lib: m.register_buffer("a.b", None),
        lambda m, lib: m.register_buffer("", None),
        lambda m, lib: m.register_buffer("weight", None),
        lambda m, lib: m.register_buffer("new", 3),
        lambda m, lib: m.register_buffer("new", Text("x")),
        lambda m, lib: m.add_module(3, None),
        lambda m, lib: m.add_module("a.b", None),
        lambda m, lib: m.add_module("", None),
        lambda m, lib: m.add_module("weight", None),
        lambda m, lib: m.add_module("new", 3),
        lambda m, lib: m.register_module("plain", lib.nn.ReLU()),
        lambda m, lib: setattr(m, "weight", "text"),
        lambda m, lib: setattr(m, "seen", "text"),
        lambda m, lib: setattr(m, "child", "text"),
        lambda m, lib: setattr(m, "child", 3),
        lambda m, lib: setattr(m, "weight", lib.nn.ReLU()),
        lambda m, lib: setattr(m, "a.b", lib.nn.Parameter(lib.xp.ones((1,)))),
        lambda m, lib: m.nothing,
        lambda m, lib: delattr(m, "nothing"),
        lambda m, lib: m(1),
        lambda m, lib: lib.nn.Module(1),
        lambda m, lib: lib.nn.Module(size=1),
        lambda m, lib: lib.nn.Parameter(lib.xp.asarray([1, 2])),
    ],
)
def test_what_is_refused(both, raised, act):
    """Each mistake raises what PyTorch raises, in the same words."""
    found = [raised(lambda lib=lib: act(prepared(lib), lib)) for lib in both]
    ours, theirs = "statedict.nn.layers._rectifiers.", "torch.nn.modules.activation."
    assert found[0] == (found[1][0], found[1][1].replace(ours, theirs))


@pytest.mark.parametrize("value", ["parameter", "module", "buffer", "register"])
def test_before_init(both, raised, value):
    """A module that has not called `super().__init__()` says so."""
    texts = set()
    for lib in both:

        class Early(lib.nn.Module):
            def __init__(self, lib=lib):
                given = {
                    "parameter": lib.nn.Parameter(lib.xp.ones((1,))),
                    "module": lib.nn.ReLU(),
                    "buffer": lib.nn.Buffer(lib.xp.ones((1,))),
                }
                if value == "register":
                    self.register_buffer("x", given["buffer"])
                self.x = given[value]

        texts.add(raised(Early))
    assert len(texts) == 1
    assert next(iter(texts))[0] == "AttributeError"


def members(module):
    return {
        "parameters": {k: v is None for k, v in module._parameters.items()},
        "buffers": {k: v is None for k, v in module._buffers.items()},
        "modules": {k: v is None for k, v in module._modules.items()},
        "passing": set(module._non_persistent_buffers_set),
        "plain": {k for k in vars(module) if not k.startswith("_")},
        "state": list(module.state_dict()),
    }


@pytest.mark.parametrize(
    "act",
    [
        lambda m, lib: setattr(m, "weight", None),
        lambda m, lib: setattr(m, "child", None),
        lambda m, lib: setattr(m, "seen", None),
        lambda m, lib: setattr(m, "seen", lib.xp.ones((3,))),
        lambda m, lib: setattr(m, "passing", lib.xp.ones((3,))),
        lambda m, lib: setattr(m, "passing", lib.nn.Buffer(lib.xp.ones((3,)))),
        lambda m, lib: setattr(m, "seen", lib.nn.Buffer(lib.xp.ones((3,)), persistent=False)),
        lambda m, lib: setattr(m, "new", lib.nn.Buffer(lib.xp.ones((3,)))),
        lambda m, lib: setattr(m, "new", lib.xp.ones((3,))),
        lambda m, lib: setattr(m, "seen", lib.nn.Parameter(lib.xp.ones((3,)))),
        lambda m, lib: setattr(m, "child", lib.nn.Parameter(lib.xp.ones((3,)))),
        lambda m, lib: setattr(m, "plain", lib.nn.Parameter(lib.xp.ones((3,)))),
        lambda m, lib: setattr(m, "passing", lib.nn.ReLU()),
        lambda m, lib: setattr(m, "dotted.name", lib.nn.Linear(1, 1)),
        lambda m, lib: m.register_buffer("passing", lib.xp.ones((3,))),
        lambda m, lib: m.register_buffer("none", None),
        lambda m, lib: m.register_parameter("new", lib.nn.Parameter(lib.xp.ones((3,)))),
        lambda m, lib: m.register_parameter("none", None),
        lambda m, lib: m.add_module("child", None),
        lambda m, lib: delattr(m, "weight"),
        lambda m, lib: delattr(m, "passing"),
        lambda m, lib: delattr(m, "child"),
        lambda m, lib: delattr(m, "plain"),
    ],
)
def test_where_values_go(both, act):
    """After each assignment, registration or deletion the same names are in the same stores."""
    found = []
    for lib in both:
        module = prepared(lib)
        act(module, lib)
        found.append(members(module))
    assert found[0] == found[1]


def test_subclasses_that_register_buffers_themselves(lib, raised):
    """An overriding `register_buffer` without `persistent` is called without it; it cannot take what is not saved."""
    calls = []

    class Own(lib.nn.Module):
        def register_buffer(self, name, tensor):
            calls.append(name)
            super().register_buffer(name, tensor)

    module = Own()
    module.x = lib.nn.Buffer(lib.xp.ones((1,)))
    module.x = lib.xp.zeros((1,))
    assert calls == ["x", "x"]
    with pytest.raises(RuntimeError, match="without the persistent argument"):
        module.y = lib.nn.Buffer(lib.xp.ones((1,)), persistent=False)


def test_names_that_completion_offers(both):
    """`dir` lists parameters, buffers and modules, and no numbers."""
    for lib in both:
        module = prepared(lib)
        module.add_module("0", lib.nn.ReLU())
        assert {"weight", "seen", "child", "plain", "forward"} <= set(dir(module))
        assert "0" not in dir(module)


def test_cooperative_initialisation(lib):
    """With `call_super_init` the arguments go on to the next class."""

    class Other:
        def __init__(self, size):
            self.size = size

    class Mixed(lib.nn.Module, Other):
        call_super_init = True

    assert Mixed(3).size == 3


def test_numpy_scalars_are_buffers():
    """What NumPy's reductions give is registered as an array of no dimensions."""
    module = nn.Module()
    module.register_buffer("mean", np.ones(3).mean())
    assert module.mean.shape == ()
    assert isinstance(module.mean, np.ndarray)


def test_arrays_that_cannot_be_written_are_held_by_a_buffer():
    """A read-only array is registered as a Buffer of it, which can be given other elements by a load."""
    module = nn.Module()
    frozen = np.broadcast_to(np.float32(1), (2, 2))
    module.register_buffer("table", frozen)
    assert isinstance(module.table, nn.Buffer)
    assert (module.table + 1 == 2).all()
    module.load_state_dict({"table": np.zeros((2, 2), np.float32)})
    assert not module.table.data.any()
