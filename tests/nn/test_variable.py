"""A Parameter acts as its array, and keeps its identity when it is given another."""

import copy
import operator
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch

from statedict import nn
from statedict.state import leaf_of, read_array

BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne"]


def parameter():
    return nn.Parameter(np.array([[1.0, 2.0], [3.0, 4.0]]))


@pytest.mark.parametrize("name", BINARY)
def test_operators(name):
    """Every operator gives what the arrays give, a plain array, on either side and between two Parameters."""
    act, p, other = getattr(operator, name), parameter(), np.array([[2.0, 1.0], [1.0, 2.0]])
    for result in (act(p, other), act(p, nn.Parameter(other))):
        assert type(result) is np.ndarray
        assert (result == act(p.data, other)).all()
    assert (act(other, p) == act(other, p.data)).all()
    if name != "matmul":
        assert (act(2.0, p) == act(2.0, p.data)).all()


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ipow"])
def test_operators_in_place(name):
    """An operator in place writes into the array that is there."""
    p = parameter()
    before, array = p, p.data
    expected = getattr(operator, name)(p.data.copy(), 2.0)
    p = getattr(operator, name)(p, 2.0)
    assert p is before
    assert p.data is array
    assert (array == expected).all()


def test_other_operations():
    """Signs, indexing, iteration, containment, conversion to numbers; attributes and methods are the array's."""
    p = parameter()
    assert (-p == -p.data).all()
    assert (+p == p.data).all()
    assert (abs(-1 * p) == p.data).all()
    assert (~nn.Parameter(np.array([True]), requires_grad=False)).tolist() == [False]
    assert p[0].tolist() == [1.0, 2.0]
    p[0, 0] = 9.0
    assert p.data[0, 0] == 9.0
    assert len(p) == 2
    assert [row.tolist() for row in p] == [[9.0, 2.0], [3.0, 4.0]]
    assert 9.0 in p
    one = nn.Parameter(np.array(1.5))
    assert (float(one), int(one), bool(one)) == (1.5, 1, True)
    assert (p.shape, p.ndim, p.size(), p.size(1), p.dim(), p.numel()) == ((2, 2), 2, (2, 2), 2, 2, 4)
    assert p.sum() == 18.0
    assert p.T.shape == (2, 2)
    assert p.detach() is p.data
    assert p.numpy() is p.data
    with pytest.raises(AttributeError, match="'Parameter' object has no attribute '__nothing__'"):
        p.__nothing__


def test_other_libraries_take_it():
    """NumPy's functions, PyTorch's functions and DLPack see the array, the same memory where that can be."""
    p = parameter()
    assert np.asarray(p) is p.data
    assert np.array(p, dtype=np.float32).dtype == np.float32
    half = nn.Parameter(np.ones(2, ml_dtypes.bfloat16))
    assert np.asarray(half).dtype == ml_dtypes.bfloat16
    assert np.matmul(p, p).shape == (2, 2)
    assert np.shares_memory(np.from_dlpack(p), p.data)
    assert torch.from_dlpack(p).data_ptr() == p.data.ctypes.data
    theirs = nn.Parameter(torch.ones(2, 2))
    assert torch.equal(torch.cat([theirs, theirs]), torch.ones(4, 2))
    assert torch.equal(torch.ones(2, 2) @ theirs, torch.full((2, 2), 2.0))


def test_identity():
    """Parameters are compared by identity in sets and dictionaries, elementwise by ==."""
    one, other = parameter(), parameter()
    assert len({one, other}) == 2
    assert (one == other).all()
    data = one.data
    one.data = np.zeros(3)
    assert one.shape == (3,)
    assert data.shape == (2, 2)


def test_copies_and_pickles():
    """A shallow copy shares the array; a deep copy and a pickle have their own, and keep the flags."""
    p = nn.Parameter(np.ones(3), requires_grad=False)
    p.note = "kept"
    b = nn.Buffer(np.ones(3), persistent=False)
    assert copy.copy(p).data is p.data
    for other in (copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert not np.shares_memory(other.data, p.data)
        assert type(other) is nn.Parameter
        assert not other.requires_grad
    assert pickle.loads(pickle.dumps(p)).note == "kept"
    for other in (copy.deepcopy(b), pickle.loads(pickle.dumps(b)), copy.copy(b)):
        assert (type(other), other.persistent) == (nn.Buffer, False)
    one, two = copy.deepcopy([p, p])
    assert one is two


def test_whole_modules_are_copied_and_pickled():
    """A copied module computes the same, shares no memory, and keeps what was tied."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LSTM(2, 2))
    model.append(model[0])
    model.eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other[0] is other[3]
        assert repr(other) == repr(model)
        assert all((a == b).all() for a, b in zip(model.state_dict().values(), other.state_dict().values()))
        assert not np.shares_memory(other[0].weight.data, model[0].weight.data)
        assert not other.training


def test_reprs():
    """A Parameter prints as one, with its array."""
    assert repr(nn.Parameter(np.ones(2))) == "Parameter containing:\narray([1., 1.])"
    assert repr(nn.Buffer(np.ones(2))) == "Buffer containing:\narray([1., 1.])"


def test_what_is_no_array():
    """Lists and texts are refused; nothing gives an empty float32 array, as PyTorch's Parameter does."""
    for wrong in ([1.0], "text", None.__class__):
        with pytest.raises(TypeError, match="expected an array of NumPy"):
            nn.Parameter(wrong)
    assert nn.Parameter().shape == (0,)
    assert nn.Buffer().dtype == np.float32
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can require gradients"):
        nn.Parameter(np.arange(3))
    counts = nn.Parameter(np.arange(3), requires_grad=False)
    with pytest.raises(RuntimeError):
        counts.requires_grad_()


def test_parameters_are_leaves():
    """What is saved of a Parameter is its array: the same memory."""
    p = parameter()
    leaf = leaf_of(p)
    assert read_array(leaf).ctypes.data == p.data.ctypes.data
    assert leaf.spec.shape == (2, 2)
