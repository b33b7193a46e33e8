"""Nonlinearities against PyTorch's, on random settings and on what lies at their edges."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn

number = st.floats(0.1, 3.0)
LAYERS = {
    **{kind: st.tuples() for kind in (
        "ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "Sigmoid", "Tanh", "LogSigmoid", "Softsign",
        "Tanhshrink",
    )},
    "Hardtanh": st.tuples(st.floats(-2, -0.1), number),
    "LeakyReLU": st.tuples(number),
    "ELU": st.tuples(number),
    "CELU": st.tuples(number),
    "GELU": st.tuples(st.sampled_from(["none", "tanh"])),
    "GLU": st.tuples(st.sampled_from([-1, 1])),
    "Threshold": st.tuples(number, number),
    "Softplus": st.tuples(number, st.floats(1, 20)),
    "Hardshrink": st.tuples(number),
    "Softshrink": st.tuples(number),
    "RReLU": st.tuples(st.floats(0.1, 0.2), st.floats(0.3, 0.4)),
    "Softmax": st.tuples(st.integers(-3, 2)),
    "Softmin": st.tuples(st.integers(-3, 2)),
    "LogSoftmax": st.tuples(st.integers(-3, 2)),
    "PReLU": st.tuples(st.sampled_from([1, 4]), number),
}  # fmt: skip


@settings(max_examples=12)
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind, data, dtype, twins, same):
    """Every nonlinearity gives PyTorch's values, in single and double precision."""
    theirs, ours = twins(kind, *data.draw(LAYERS[kind]))
    x = torch.randn(3, 4, 6, dtype=dtype) * data.draw(st.sampled_from([0.5, 5.0, 50.0]))
    theirs, ours = theirs.to(dtype).eval(), ours.to(dtype).eval()
    same(theirs(x), ours(x.numpy()))


@pytest.mark.parametrize("kind", sorted(set(LAYERS) - {"Hardshrink", "Softshrink", "Threshold", "RReLU"}))
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_edges(kind, twins, same):
    """Infinities, NaN, zeros and numbers whose exponential overflows give PyTorch's values, without a warning."""
    args = {"GLU": (0,), "Softmax": (0,), "Softmin": (0,), "LogSoftmax": (0,)}.get(kind, ())
    theirs, ours = twins(kind, *args)
    numbers = [0.0, -0.0, 1e-30, -1e-30, 88.0, -88.0, 200.0, -200.0, 1e30, -1e30]
    if kind not in ("Tanhshrink", "Softsign", "SiLU", "Mish", "GELU", "Hardswish", "GLU"):
        numbers += [float("inf"), -float("inf")]
    if kind not in ("Softmax", "Softmin", "LogSoftmax"):
        numbers += [float("nan"), 1.0]
    x = torch.tensor(numbers)
    same(theirs(x), ours(x.numpy()))


@pytest.mark.parametrize("kind", ["ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "ELU", "CELU"])
def test_in_place(kind, same):
    """`inplace=True` writes the result into the input and gives that back."""
    x = np.array([-2.0, -0.5, 0.5, 2.0], np.float32)
    expected = getattr(nn, kind)()(x.copy())
    result = getattr(nn, kind)(inplace=True)(x)
    assert result is x
    same(expected, x)


def test_softmax_over_channels(twins, same):
    """Softmax2d is over the third dimension from the last."""
    theirs, ours = twins("Softmax2d")
    for shape in ((2, 3, 4, 5), (3, 4, 5)):
        x = torch.randn(shape)
        same(theirs(x), ours(x.numpy()))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["Softmax", "Softmin", "LogSoftmax"])
def test_softmax_without_a_dimension(both, same, kind, shape):
    """Without `dim` the dimension is guessed as PyTorch guesses it, with its warning."""
    x = torch.randn(shape)
    results = []
    for lib in both:
        with pytest.warns(UserWarning, match="Implicit dimension choice for"):
            results.append(getattr(lib.nn, kind)()(x if lib.name == "torch" else x.numpy()))
    same(*results)


def test_rrelu_draws_its_slopes():
    """In training each negative element has a slope of its own between the bounds; the seed repeats them."""
    x = -np.ones(1000, np.float32)
    nn.manual_seed(5)
    first = nn.RReLU(0.25, 0.5)(x)
    nn.manual_seed(5)
    assert (nn.RReLU(0.25, 0.5)(x) == first).all()
    assert -0.5 <= first.min() < -0.45
    assert -0.3 < first.max() <= -0.25


def test_old_names_of_hardtanh():
    """`min_value` and `max_value` are still taken, with PyTorch's warning."""
    with pytest.warns(FutureWarning, match="min_value"):
        layer = nn.Hardtanh(min_value=-3.0)
    assert (layer.min_val, layer.max_val) == (-3.0, 1.0)


@pytest.mark.parametrize(
    "made",
    [
        lambda nn, x: nn.Hardtanh(1.0, -1.0),
        lambda nn, x: nn.GELU("sin")(x),
        lambda nn, x: nn.GLU()(x),
        lambda nn, x: nn.Softmax2d()(x),
        lambda nn, x: nn.Softshrink(-1.0)(x),
    ],
)
def test_settings_that_cannot_be(both, raised, made):
    """Bad settings and inputs are refused with the same kinds of errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds = {raised(lambda lib=lib: made(lib.nn, lib.xp.ones((3,), dtype=lib.xp.float32)))[0] for lib in both}
    assert len(kinds) == 1
