"""Signatures, default dtypes and the ranges of initial weights: PyTorch's."""

import inspect

import numpy as np
import pytest
import torch

from statedict import nn

ALL = [name for name in nn.__all__ if getattr(getattr(nn, name), "__module__", "").startswith("statedict.nn.layers.")]
NAMES = [name for name in ALL if hasattr(torch.nn, name)]


def parameters_of(kind):
    """(name, kind, default) of a constructor's parameters; functions as their names."""
    found = inspect.signature(kind.__init__).parameters.values()
    return [(p.name, p.kind, getattr(p.default, "__name__", p.default)) for p in found]


def test_signatures():
    """Every constructor has PyTorch's parameters, in order, with the same defaults."""
    ours, theirs = ({name: parameters_of(getattr(library, name)) for name in NAMES} for library in (nn, torch.nn))
    assert ours == theirs


def test_calls():
    """Every `forward` has PyTorch's parameters, in order."""
    names = [
        name for name in NAMES if name not in ("RNNBase", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
    ]
    ours, theirs = (
        {name: list(inspect.signature(getattr(library, name).forward).parameters) for name in names}
        for library in (nn, torch.nn)
    )
    assert ours == theirs


def test_every_layer_is_pytorchs():
    """There is no layer that PyTorch does not have: a class body works with either import."""
    assert NAMES == ALL


LAYERS = {
    "Linear": (300, 200),
    "Bilinear": (30, 20, 40),
    "Conv1d": (20, 30, 7),
    "Conv2d": (12, 20, (3, 5)),
    "Conv3d": (6, 8, 3),
    "ConvTranspose1d": (20, 30, 7),
    "ConvTranspose2d": (12, 20, 3),
    "LSTM": (30, 50),
    "GRU": (30, 50),
    "RNN": (30, 50),
    "LSTMCell": (30, 50),
    "Embedding": (300, 50),
    "EmbeddingBag": (300, 50),
    "MultiheadAttention": (60, 3, 0.0, True, True),
    "BatchNorm2d": (30,),
    "LayerNorm": (30,),
    "GroupNorm": (2, 30),
    "RMSNorm": (30,),
    "PReLU": (30,),
    "Transformer": (24, 2, 1, 1, 50),
}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", LAYERS)
def test_initial_weights(name):
    """Each parameter's mean, deviation and range are those of PyTorch's, up to what chance makes of so many numbers."""
    torch.manual_seed(0)
    nn.manual_seed(0)
    theirs = getattr(torch.nn, name)(*LAYERS[name]).state_dict()
    ours = getattr(nn, name)(*LAYERS[name]).state_dict()
    for key, expected in theirs.items():
        expected, actual = expected.double().numpy(), ours[key].astype(float)
        deviation = expected.std()
        if expected.size < 2 or deviation == 0:
            assert (actual == expected).all(), key
            continue
        chance = 5 / np.sqrt(expected.size)
        assert abs(actual.mean() - expected.mean()) < chance * deviation * 1.5, key
        assert abs(actual.std() / deviation - 1) < chance, key
        # An even distribution ends where it ends; a normal one has no end.
        if np.abs(expected).max() < 1.8 * deviation:
            assert np.abs(actual).max() <= np.abs(expected).max() * (1 + chance), key


@pytest.mark.parametrize("name", LAYERS)
def test_dtypes(name):
    """float32 unless `dtype` says otherwise, by PyTorch's names or NumPy's; running counts stay integers."""
    for dtype, wanted in (
        (None, "float32"),
        ("float64", "float64"),
        (np.float16, "float16"),
        (torch.float64, "float64"),
    ):
        layer = getattr(nn, name)(*LAYERS[name], dtype=dtype, device="cpu")
        assert {str(p.dtype) for p in layer.parameters()} == {wanted}
        assert {str(b.dtype) for b in layer.buffers()} <= {wanted, "int64"}


def test_other_devices_are_refused():
    """NumPy arrays are on the CPU; another device is refused."""
    with pytest.raises(ValueError, match="NumPy arrays cannot be on cuda:1"):
        nn.Linear(2, 2, device="cuda:1")


def test_the_seed_repeats_initial_weights():
    """`manual_seed` makes initial weights repeatable."""
    nn.manual_seed(7)
    first = nn.Linear(5, 5).weight.data
    nn.manual_seed(7)
    assert (nn.Linear(5, 5).weight.data == first).all()
    assert (nn.Linear(5, 5).weight.data != first).any()
