"""Walking a tree: names, order, duplicates and lookups are PyTorch's."""

import pytest


def tree(lib):
    """A tree with a shared module, a shared parameter, a shared buffer, a None child and names of several levels."""
    nn, xp = lib.nn, lib.xp
    net = nn.Module()
    net.block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.again = net.block
    net.none = None
    net.register_module("absent", None)
    net.head = nn.Linear(2, 2)
    net.head.weight = net.block[0].weight
    net.register_buffer("seen", xp.zeros((1,)))
    net.head.register_buffer("seen_too", net.seen)
    net.register_buffer("passing", xp.zeros((1,)), persistent=False)
    return net


WALKS = {
    "named_modules": lambda net: [name for name, _ in net.named_modules()],
    "named_modules with duplicates": lambda net: [name for name, _ in net.named_modules(remove_duplicate=False)],
    "named_modules with a prefix": lambda net: [name for name, _ in net.named_modules(prefix="x.y")],
    "modules": lambda net: [type(module).__name__ for module in net.modules()],
    "named_children": lambda net: [name for name, _ in net.named_children()],
    "children": lambda net: [type(module).__name__ for module in net.children()],
    "named_parameters": lambda net: [name for name, _ in net.named_parameters()],
    "named_parameters with duplicates": lambda net: [n for n, _ in net.named_parameters(remove_duplicate=False)],
    "named_parameters with a prefix": lambda net: [name for name, _ in net.named_parameters("x")],
    "own parameters": lambda net: [name for name, _ in net.head.named_parameters(recurse=False)],
    "parameters": lambda net: [tuple(p.shape) for p in net.parameters()],
    "named_buffers": lambda net: [name for name, _ in net.named_buffers()],
    "named_buffers with duplicates": lambda net: [name for name, _ in net.named_buffers(remove_duplicate=False)],
    "buffers": lambda net: [tuple(b.shape) for b in net.buffers()],
    "state_dict": lambda net: list(net.state_dict()),
    "state_dict with a prefix": lambda net: list(net.state_dict(prefix="x.")),
}


@pytest.mark.parametrize("walk", WALKS)
def test_walks(both, walk):
    """Every walk gives PyTorch's names in its order, shared objects once unless asked otherwise."""
    expected, actual = (WALKS[walk](tree(lib)) for lib in both)
    assert expected == actual


def test_lookups(lib):
    """Modules, parameters and buffers are found by dotted name."""
    net = tree(lib)
    assert net.get_submodule("") is net
    assert net.get_submodule("block.0") is net.block[0]
    assert net.get_parameter("again.0.bias") is net.block[0].bias
    assert net.get_buffer("block.1.running_mean") is net.block[1].running_mean


@pytest.mark.parametrize(
    "act",
    [
        lambda net, nn: net.get_submodule("nothing"),
        lambda net, nn: net.get_submodule("block.7"),
        lambda net, nn: net.get_submodule("absent"),
        lambda net, nn: net.get_submodule("seen"),
        lambda net, nn: net.get_parameter("seen"),
        lambda net, nn: net.get_parameter("head.nothing"),
        lambda net, nn: net.get_buffer("head.weight"),
        lambda net, nn: net.set_submodule("", nn.ReLU()),
        lambda net, nn: net.set_submodule("nothing.x", nn.ReLU()),
        lambda net, nn: net.set_submodule("seen", nn.ReLU()),
        lambda net, nn: net.set_submodule("new", nn.ReLU(), strict=True),
        lambda net, nn: net.set_submodule("new", 3),
    ],
)
def test_lookups_that_find_nothing(both, raised, act):
    """What is not there raises PyTorch's errors, with its texts."""
    expected, actual = (raised(lambda lib=lib: act(tree(lib), lib.nn)) for lib in both)
    assert expected == actual
    assert expected is not None


def test_replacing_a_sub_module(lib):
    """`set_submodule` puts a module where another was, or where none was."""
    net, nn = tree(lib), lib.nn
    net.set_submodule("block.0", nn.Identity(), strict=True)
    assert type(net.again[0]).__name__ == "Identity"
    net.set_submodule("new", nn.ReLU())
    assert type(net.new).__name__ == "ReLU"


def test_apply_calls_children_first(lib):
    """`apply` calls a function with every module, children before parents, and returns the module."""
    net, names = lib.nn.Sequential(lib.nn.Linear(1, 1), lib.nn.Sequential(lib.nn.ReLU())), []
    assert net.apply(lambda module: names.append(type(module).__name__)) is net
    assert names == ["Linear", "ReLU", "Sequential", "Sequential"]
