"""Functions by PyTorch's names: their signatures, and what layers do not cover."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.nn import Parameter
from statedict.nn import functional as F

# PyTorch writes these as builtins, without a signature, or dispatches on a flag first.
THEIRS = {name: getattr(torch.nn.functional, name) for name in F.__all__}


def signature(function):
    try:
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return None


def test_every_function_is_pytorchs():
    """There is no function that PyTorch does not have."""
    assert all(callable(function) for function in THEIRS.values())


def documented(function):
    """The parameters in the first line of a builtin's documentation."""
    text = function.__doc__.strip().replace("\n", " ")
    inside = text[text.index("(") + 1 : text.index(")")]
    words = [part.split("=")[0].split(":")[0].strip(" *") for part in inside.split(",")]
    return [word for word in words if word.isidentifier() and word not in ("None", "True", "False")]


def test_signatures():
    """The names and defaults are PyTorch's, in the same order; for a builtin, the names in its documentation."""
    for name, function in THEIRS.items():
        ours, theirs = signature(getattr(F, name)), signature(function)
        if theirs is None:
            assert [word for word, _ in ours if not word.startswith("_")] == documented(function), name
        elif not any(word in str(theirs) for word in ("args", "kwargs")):
            assert ours == theirs, name


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(3, 5), min_size=1, max_size=4),
    data=st.data(),
    mode=st.sampled_from(["constant", "reflect", "replicate", "circular"]),
)
def test_pad(shape, data, mode, same):
    """Any number of the last dimensions is padded by a constant; the other modes where PyTorch pads them."""
    torch.manual_seed(0)
    if mode == "constant":
        count = data.draw(st.integers(0, len(shape)))
    else:
        count = min(max(len(shape) - 1, 1), 3)
        shape = [2, *shape] if len(shape) < 2 else shape
    low = -1 if mode == "constant" else 0
    pads = data.draw(st.lists(st.integers(low, 2), min_size=2 * count, max_size=2 * count))
    x = torch.randn(shape)
    value = data.draw(st.sampled_from([None, 0.0, 2.5])) if mode == "constant" else None
    same(torch.nn.functional.pad(x, pads, mode, value), F.pad(x.numpy(), pads, mode, value))


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: F.pad(x, (1,)), RuntimeError),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0)), RuntimeError),
        (lambda x: F.pad(x, (-2, -2)), RuntimeError),
        (lambda x: F.pad(x, (1, 1), "mirror"), NotImplementedError),
        (lambda x: F.pad(x, (1, 1), "circular", 2.0), ValueError),
        (lambda x: F.pad(x, (4, 0), "circular"), RuntimeError),
        (lambda x: F.pad(x, (3, 0), "reflect"), RuntimeError),
        (lambda x: F.embedding_bag(x.astype(int), x, mode="median"), ValueError),
        (lambda x: F.embedding_bag(x.astype(int)[None], x), ValueError),
        (lambda x: F.conv1d(x, x[None], padding="full"), RuntimeError),
        (lambda x: F.conv1d(x, x[None], padding="same", stride=2), RuntimeError),
        (lambda x: F.conv1d(x, x[None], stride=(1, 2)), RuntimeError),
        (lambda x: F.conv_transpose1d(x, x[:, None], output_padding=1), RuntimeError),
        (lambda x: F.group_norm(x, 2), RuntimeError),
        (lambda x: F.layer_norm(x, (5,)), RuntimeError),
        (lambda x: F.local_response_norm(x, 2), ValueError),
        (lambda x: F.instance_norm(x[..., None][..., :1]), ValueError),
        (lambda x: F.bilinear(x, x[:1], x[None]), RuntimeError),
        (lambda x: F.scaled_dot_product_attention(x, x, x, x @ x.T, is_causal=True), RuntimeError),
    ],
)
def test_what_is_refused(call, kind):
    """Arguments that do not fit raise the kind of error that PyTorch raises."""
    with pytest.raises(kind):
        call(np.ones((3, 3), np.float32) if "instance" not in repr(call) else np.ones((3, 3, 1), np.float32))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, float("inf")])
def test_normalize(p, same):
    """Vectors are divided by their p-norm, and a zero vector by eps."""
    x = torch.randn(3, 4)
    x[1] = 0
    same(torch.nn.functional.normalize(x, p), F.normalize(x.numpy(), p))
    out = np.zeros((3, 4), np.float32)
    assert F.normalize(x.numpy(), p, dim=0, out=out) is out
    same(torch.nn.functional.normalize(x, p, dim=0), out)


def test_cosine_similarity(same):
    """Shapes are broadcast; zero vectors have similarity 0."""
    x, y = torch.randn(3, 4), torch.randn(1, 4)
    x[1] = 0
    same(torch.nn.functional.cosine_similarity(x, y), F.cosine_similarity(x.numpy(), y.numpy()))


def test_one_hot(same):
    """Numbers as vectors, as many as needed or as said."""
    x = torch.tensor([[0, 2], [1, 0]])
    same(torch.nn.functional.one_hot(x), F.one_hot(x.numpy()))
    same(torch.nn.functional.one_hot(x, 5), F.one_hot(x.numpy(), 5))
    for call in (
        lambda: torch.nn.functional.one_hot(x, 2),
        lambda: F.one_hot(x.numpy(), 2),
        lambda: F.one_hot(-x.numpy()),
    ):
        with pytest.raises(RuntimeError):
            call()


def test_batch_norm_without_parameters(same):
    """The function works with the batch's statistics alone, and on a batch without samples."""
    x = torch.randn(4, 3)
    same(
        torch.nn.functional.batch_norm(x, None, None, training=True),
        F.batch_norm(x.numpy(), None, None, training=True),
    )
    assert F.batch_norm(np.zeros((0, 3)), np.zeros(3), np.ones(3)).shape == (0, 3)


def test_parameters_count_as_their_arrays():
    """Functions take Parameters wherever they take arrays, and give arrays."""
    weight = Parameter(np.eye(2, dtype=np.float32))
    assert type(F.linear(weight, weight, weight[0])) is np.ndarray
    assert type(F.relu(weight)) is np.ndarray


def test_a_vector_as_weight(same):
    """`linear` with a weight of one dimension gives one number a row."""
    x, w = torch.randn(3, 4), torch.randn(4)
    same(torch.nn.functional.linear(x, w), F.linear(x.numpy(), w.numpy()))
