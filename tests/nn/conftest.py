"""What the tests of `statedict.nn` share: PyTorch's `nn` beside ours, and how values of the two are compared."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import statedict.nn

try:
    import torch
except ModuleNotFoundError:
    torch = TORCH = None
else:
    TORCH = SimpleNamespace(name="torch", nn=torch.nn, F=torch.nn.functional, optim=torch.optim, xp=torch)
OURS = SimpleNamespace(name="statedict", nn=statedict.nn, F=statedict.nn.functional, optim=statedict.nn.optim, xp=np)


@pytest.fixture(params=["torch", "statedict"])
def lib(request):
    """One of the two imports: `nn`, `F` (functional), `optim`, and `xp`, the library of arrays."""
    return both_of()[0] if request.param == "torch" else OURS


def both_of():
    if TORCH is None:
        pytest.skip("needs the package torch")
    return TORCH, OURS


@pytest.fixture(scope="session")
def both():
    """PyTorch's import and ours."""
    return both_of()


@pytest.fixture(autouse=True)
def _one_thread_and_its_own_fast_path():
    """PyTorch's fast path gives zeros at padded positions, where its other path and ours give what the layers compute."""
    if torch is None:
        yield
        return
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


def plain(value):
    """Tensors, Parameters and arrays as NumPy arrays, within tuples, lists and dicts too."""
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return np.asarray(value) if hasattr(value, "__array__") else value


def assert_same(expected, actual, rtol=1e-5, atol=1e-6):
    """Equal shapes, dtypes and elements, through tuples and lists; `atol` is of the largest element."""
    expected, actual = plain(expected), plain(actual)
    if isinstance(expected, (list, tuple)):
        assert len(expected) == len(actual)
        for one, other in zip(expected, actual):
            assert_same(one, other, rtol, atol)
    elif isinstance(expected, np.ndarray):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
        size = float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))
        assert_allclose(actual, expected, rtol=rtol, atol=atol * size)
    else:
        assert expected == actual


def assert_same_state(expected, actual):
    """Names in order, shapes, dtypes, elements and metadata of two state dicts."""
    assert list(expected) == list(actual)
    for name in expected:
        assert_same(expected[name], actual[name])
    assert [(k, dict(v)) for k, v in expected._metadata.items()] == [(k, dict(v)) for k, v in actual._metadata.items()]


@pytest.fixture(scope="session")
def same():
    return assert_same


@pytest.fixture(scope="session")
def same_state():
    return assert_same_state


@pytest.fixture(scope="session")
def twins():
    """A function that makes a layer of PyTorch and ours with one set of weights: `twins("Linear", 3, 2, bias=False)`.

    It seeds PyTorch, so that an example that failed can be repeated.
    """

    both_of()

    def make(kind, *args, **kwargs):
        torch.manual_seed(0)
        theirs = getattr(torch.nn, kind)(*args, **kwargs)
        ours = getattr(statedict.nn, kind)(*args, **kwargs)
        assert_same_state_names(theirs, ours)
        ours.load_state_dict(theirs.state_dict())
        assert repr(theirs) == repr(ours)
        return theirs, ours

    return make


def assert_same_state_names(theirs, ours):
    expected, actual = theirs.state_dict(), ours.state_dict()
    assert [(n, tuple(v.shape), str(v.dtype)) for n, v in expected.items()] == [
        (n, v.shape, f"torch.{v.dtype}") for n, v in actual.items()
    ]
    assert [(k, dict(v)) for k, v in expected._metadata.items()] == [(k, dict(v)) for k, v in actual._metadata.items()]


@pytest.fixture(scope="session")
def raised():
    """A function that gives what a call raises, as (builtin type, text)."""

    def what(call):
        try:
            call()
        except Exception as error:
            kinds = [kind for kind in type(error).__mro__ if kind.__module__ == "builtins"]
            return kinds[0].__name__, str(error)
        return None

    return what
