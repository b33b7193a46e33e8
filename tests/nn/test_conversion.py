"""`to` and its kin, and the flags."""

import ml_dtypes
import numpy as np
import pytest
import torch

from statedict import nn


def net(lib):
    return lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.BatchNorm1d(3))


def dtypes(module):
    return [str(array.dtype).removeprefix("torch.") for array in module.state_dict().values()]


@pytest.mark.parametrize(
    "act",
    [
        lambda m, lib: m.half(),
        lambda m, lib: m.double(),
        lambda m, lib: m.double().float(),
        lambda m, lib: m.bfloat16(),
        lambda m, lib: m.to(lib.xp.float64),
        lambda m, lib: m.to(dtype=lib.xp.float16),
        lambda m, lib: m.to("cpu", lib.xp.float64),
        lambda m, lib: m.to("cpu"),
        lambda m, lib: m.to(lib.xp.zeros((1,), dtype=lib.xp.float64)),
        lambda m, lib: m.to(device="cpu", dtype=None, non_blocking=True),
        lambda m, lib: m.type(lib.xp.float64),
        lambda m, lib: m.cpu(),
        lambda m, lib: m.to_empty(device="cpu"),
    ],
)
def test_casts(both, act):
    """Floating point parameters and buffers are cast, counts stay integers, and the module is returned."""
    found = []
    for lib in both:
        module = net(lib)
        parameters = list(module.parameters())
        assert act(module, lib) is module
        assert all(a is b for a, b in zip(parameters, module.parameters()))
        found.append(dtypes(module))
    assert found[0] == found[1]


def test_gradients_are_cast_too(lib):
    """A parameter's gradient takes the parameter's dtype."""
    layer = lib.nn.Linear(2, 2)
    layer.weight.grad = lib.xp.ones((2, 2), dtype=lib.xp.float32)
    layer.double()
    assert layer.weight.grad.dtype == lib.xp.float64


@pytest.mark.parametrize("dtype", ["int32", "bool"])
def test_integers_are_refused(both, raised, dtype):
    """`to` takes floating point and complex dtypes only."""
    for lib in both:
        wanted = getattr(lib.xp, dtype)
        kind, text = raised(lambda lib=lib, wanted=wanted: net(lib).to(wanted))
        assert kind == "TypeError"
        assert text.startswith("nn.Module.to only accepts floating point or complex dtypes, but got desired dtype=")


def test_dtypes_by_name():
    """A dtype may be given by its name, with and without `torch.`, or as PyTorch's own."""
    for given in ("float64", "torch.float64", np.float64, np.dtype("f8"), torch.float64, float):
        assert dtypes(nn.Linear(1, 1).to(given)) == ["float64", "float64"]
    assert nn.Linear(1, 1).bfloat16().weight.dtype == ml_dtypes.bfloat16


def test_what_to_does_not_know():
    """Unknown keywords and devices are refused."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        nn.Linear(1, 1).to(colour="red")
    for act in (
        lambda m: m.to("cuda:0"),
        lambda m: m.cuda(),
        lambda m: m.cuda(1),
        lambda m: m.to(torch.device("meta")),
    ):
        with pytest.raises(ValueError, match="NumPy arrays cannot be on"):
            act(nn.Linear(1, 1))


def test_a_shared_parameter_stays_shared(lib):
    """Tied modules see one parameter, also after a cast."""
    first = lib.nn.Linear(2, 2)
    other = lib.nn.Linear(2, 2)
    other.weight = first.weight
    both_ = lib.nn.Sequential(first, other).double()
    assert both_[0].weight is both_[1].weight
    assert both_[1].weight.dtype == lib.xp.float64


def test_train_and_eval(lib):
    """The flag goes down the tree, and must be a bool."""
    module = net(lib)
    assert module.eval() is module
    assert not module[1].training
    assert module.train()[1].training
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        module.train("yes")


def test_requires_grad_and_zero_grad(lib):
    """The flag goes to every parameter; gradients are forgotten or filled with zeros."""
    module = net(lib)
    assert module.requires_grad_(False) is module
    assert not any(p.requires_grad for p in module.parameters())
    for p in module.requires_grad_().parameters():
        p.grad = lib.xp.ones(tuple(p.shape), dtype=lib.xp.float32)
    module.zero_grad(set_to_none=False)
    assert all((np.asarray(p.grad) == 0).all() for p in module.parameters())
    module.zero_grad()
    assert all(p.grad is None for p in module.parameters())
