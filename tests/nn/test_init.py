"""`nn.init`: PyTorch's ranges and distributions, filled in place."""

import math

import numpy as np
import pytest
import torch

from statedict import nn
from statedict.nn import init


def filled(function, shape, *args, **kwargs):
    parameter = nn.Parameter(np.zeros(shape, np.float32))
    assert function(parameter, *args, **kwargs) is parameter
    return parameter.data


FUNCTIONS = {
    "uniform_": ((200, 300), (-0.5, 2.0)),
    "normal_": ((200, 300), (1.0, 0.5)),
    "trunc_normal_": ((200, 300), (0.5, 1.0, -1.0, 1.0)),
    "constant_": ((3, 4), (0.25,)),
    "ones_": ((3, 4), ()),
    "zeros_": ((3, 4), ()),
    "eye_": ((3, 5), ()),
    "dirac_": ((6, 2, 3), (2,)),
    "xavier_uniform_": ((20, 30, 5), (2.0,)),
    "xavier_normal_": ((20, 30, 5), (2.0,)),
    "kaiming_uniform_": ((20, 30, 5), (0.1, "fan_out", "leaky_relu")),
    "kaiming_normal_": ((20, 30, 5), (0.0, "fan_in", "relu")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_distributions(name):
    """Mean, deviation and ends of what each function fills in are those of PyTorch's."""
    shape, args = FUNCTIONS[name]
    torch.manual_seed(0)
    nn.manual_seed(0)
    expected = getattr(torch.nn.init, name)(torch.empty(shape), *args).double().numpy()
    actual = filled(getattr(init, name), shape, *args).astype(float)
    deviation = expected.std()
    if name in ("constant_", "ones_", "zeros_", "eye_", "dirac_"):
        assert (actual == expected).all()
        return
    chance = 5 / math.sqrt(actual.size)
    assert abs(actual.mean() - expected.mean()) < 1.5 * chance * deviation
    assert abs(actual.std() / deviation - 1) < chance
    if "normal" not in name or "trunc" in name:
        assert actual.min() == pytest.approx(expected.min(), abs=5e-3 * (expected.max() - expected.min()))
        assert actual.max() == pytest.approx(expected.max(), abs=5e-3 * (expected.max() - expected.min()))


def test_truncation_far_from_the_mean():
    """Bounds far out in the tail are kept, and reached in a moment."""
    values = filled(init.trunc_normal_, (1000,), 0.0, 1.0, 3.0, 3.5)
    assert values.min() >= 3.0
    assert values.max() <= 3.5
    # The density falls tenfold over that range.
    assert values.mean() < 3.25


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 2, 3)])
def test_orthogonal(shape):
    """Rows or columns are orthonormal, times the gain."""
    matrix = filled(init.orthogonal_, shape, 2.0).reshape(shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, 4 * np.eye(min(matrix.shape)), atol=1e-5)


def test_sparse():
    """A share of each column is zero."""
    matrix = filled(init.sparse_, (10, 7), 0.3)
    assert ((matrix == 0).sum(axis=0) == 3).all()


@pytest.mark.parametrize("kind", ["linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"])
def test_gains(kind):
    """Gains are PyTorch's."""
    assert init.calculate_gain(kind) == pytest.approx(torch.nn.init.calculate_gain(kind))
    assert init.calculate_gain("leaky_relu", 0.3) == pytest.approx(torch.nn.init.calculate_gain("leaky_relu", 0.3))


def test_other_dtypes_and_generators():
    """Half precision, strided arrays and a generator of one's own work."""
    for array in (np.zeros(50, np.float16), np.zeros((10, 10), np.float32).T[::2], np.zeros(5)):
        init.uniform_(array, 1.0, 2.0)
        assert ((array >= 1) & (array <= 2)).all()
    one, two = (init.normal_(np.zeros(3), generator=np.random.default_rng(4)) for _ in range(2))
    assert (one == two).all()
    empty = np.zeros((0, 3), np.float32)
    assert init.kaiming_uniform_(empty) is empty
    assert init.kaiming_normal_(empty) is empty


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: init.eye_(np.zeros(3)), "Only tensors with 2 dimensions are supported"),
        (lambda: init.sparse_(np.zeros(3), 0.1), "Only tensors with 2 dimensions are supported"),
        (lambda: init.dirac_(np.zeros((2, 2))), "Only tensors with 3, 4, or 5 dimensions are supported"),
        (lambda: init.dirac_(np.zeros((3, 1, 1)), 2), "dim 0 must be divisible by groups"),
        (lambda: init.orthogonal_(np.zeros(3)), "Only tensors with 2 or more dimensions are supported"),
        (lambda: init.xavier_uniform_(np.zeros(3)), "Fan in and fan out can not be computed"),
        (lambda: init.kaiming_uniform_(np.zeros((2, 2)), mode="fan"), "Mode fan not supported"),
        (lambda: init.calculate_gain("sin"), "Unsupported nonlinearity sin"),
    ],
)
def test_what_is_refused(call, text):
    """Mistakes raise ValueError with PyTorch's text."""
    with pytest.raises(ValueError, match=text):
        call()
