"""Linear maps, embeddings, padding, flattening and dropout against PyTorch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn

sizes = st.integers(1, 4)
batches = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@settings(max_examples=40)
@given(
    widths=st.tuples(sizes, sizes, sizes),
    batch=batches,
    bias=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_linear_and_bilinear(widths, batch, bias, dtype, twins, same):
    """Linear and Bilinear take any shape before the last dimension."""
    one, other, out = widths
    x, y = (
        torch.randn(*batch, one, dtype=getattr(torch, dtype)),
        torch.randn(*batch, other, dtype=getattr(torch, dtype)),
    )
    for kind, args, inputs in (("Linear", (one, out), (x,)), ("Bilinear", (one, other, out), (x, y))):
        theirs, ours = twins(kind, *args, bias=bias, dtype=getattr(torch, dtype))
        same(theirs(*inputs), ours(*(array.numpy() for array in inputs)))


def test_linear_takes_no_copy_of_its_weight():
    """A weight that is a view (here: transposed) works as it lies."""
    layer = nn.Linear(3, 2)
    layer.weight.data = np.arange(6, dtype=np.float32).reshape(3, 2).T
    assert layer(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_sizes_that_do_not_fit(both, raised):
    """A wrong width is refused with PyTorch's text."""
    texts = {raised(lambda lib=lib: lib.nn.Linear(2, 4)(lib.xp.zeros((5, 3), dtype=lib.xp.float32))) for lib in both}
    assert texts == {("RuntimeError", "mat1 and mat2 shapes cannot be multiplied (5x3 and 2x4)")}


@settings(max_examples=40)
@given(
    rows=st.integers(2, 6),
    width=sizes,
    shape=batches,
    padding=st.sampled_from([None, 0, 1, -1]),
    max_norm=st.sampled_from([None, 0.5]),
    norm_type=st.sampled_from([1.0, 2.0]),
)
def test_embedding(rows, width, shape, padding, max_norm, norm_type, twins, same, same_state):
    """Rows are PyTorch's; with `max_norm` the rows that were used are shortened in the table."""
    theirs, ours = twins("Embedding", rows, width, padding, max_norm, norm_type)
    numbers = torch.randint(0, rows, shape)
    same(theirs(numbers), ours(numbers.numpy()))
    same_state(theirs.state_dict(), ours.state_dict())


@settings(max_examples=60)
@given(
    rows=st.integers(2, 6),
    mode=st.sampled_from(["sum", "mean", "max"]),
    padding=st.sampled_from([None, 0, -1]),
    lengths=st.one_of(
        st.tuples(st.integers(1, 3), st.integers(1, 4)), st.lists(st.integers(0, 3), min_size=1, max_size=4)
    ),
    weighted=st.booleans(),
    last=st.booleans(),
    max_norm=st.sampled_from([None, 0.5]),
)
def test_embedding_bag(rows, mode, padding, lengths, weighted, last, max_norm, twins, same):
    """Bags of equal and of different lengths, empty ones too, give PyTorch's sums, means and maxima."""
    equal = isinstance(lengths, tuple)
    theirs, ours = twins(
        "EmbeddingBag",
        rows,
        3,
        mode=mode,
        padding_idx=padding,
        include_last_offset=last and not equal,
        max_norm=max_norm,
    )
    numbers = torch.randint(0, rows, lengths if equal else (sum(lengths),))
    offsets = None
    if not equal:
        starts = np.cumsum([0, *lengths]).tolist()
        offsets = torch.tensor(starts if last else starts[:-1])
    weights = torch.rand(numbers.shape) if weighted and mode == "sum" else None
    expected = theirs(numbers, offsets, weights)
    own = [None if value is None else value.numpy() for value in (numbers, offsets, weights)]
    same(expected, ours(*own))


def test_tables_that_are_given():
    """`from_pretrained` takes a table as it is, frozen unless said otherwise."""
    table = np.ones((3, 2), np.float32)
    for kind in (nn.Embedding, nn.EmbeddingBag):
        layer = kind.from_pretrained(table)
        assert layer.weight.data is table
        assert not layer.weight.requires_grad
        assert kind.from_pretrained(table, freeze=False).weight.requires_grad


@pytest.mark.parametrize(
    "made",
    [
        lambda nn, xp: nn.Embedding(3, 2)(xp.asarray([3])),
        lambda nn, xp: nn.Embedding(3, 2)(xp.asarray([-1])),
        lambda nn, xp: nn.Embedding(3, 2, padding_idx=3),
        lambda nn, xp: nn.Embedding(3, 2, _weight=xp.zeros((2, 2))),
        lambda nn, xp: nn.EmbeddingBag(3, 2)(xp.asarray([1, 2])),
        lambda nn, xp: nn.EmbeddingBag(3, 2)(xp.asarray([[1, 2]]), xp.asarray([0])),
        lambda nn, xp: nn.EmbeddingBag(3, 2, mode="mean")(xp.asarray([[1, 2]]), None, xp.ones((1, 2))),
        lambda nn, xp: nn.Bilinear(0, 1, 1),
        lambda nn, xp: nn.Dropout(1.5),
        lambda nn, xp: nn.ReflectionPad1d(3)(xp.zeros((1, 1, 3))),
        lambda nn, xp: nn.GroupNorm(2, 3),
    ],
)
def test_what_is_refused(both, raised, made):
    """Bad settings and numbers raise the same kinds of errors."""
    kinds = {raised(lambda lib=lib: made(lib.nn, lib.xp))[0] for lib in both}
    assert len(kinds) == 1


@settings(max_examples=40)
@given(
    data=st.data(),
    count=st.integers(1, 3),
    kind=st.sampled_from(["Constant", "Zero", "Reflection", "Replication", "Circular"]),
    batched=st.booleans(),
)
def test_padding(data, count, kind, batched, twins, same):
    """Every padding layer gives PyTorch's, on all sides, and for constants also inwards."""
    low = -1 if kind in ("Constant", "Zero") else 0
    padding = data.draw(st.tuples(*[st.integers(low, 2)] * (2 * count)))
    padding = data.draw(st.sampled_from([padding, max(padding[0], 0)]))
    args = (padding, 1.5) if kind == "Constant" else (padding,)
    theirs, ours = twins(f"{kind}Pad{count}d", *args)
    x = torch.randn(*((2,) if batched else ()), 2, *(4, 5, 6)[:count])
    same(theirs(x), ours(x.numpy()))


@settings(max_examples=30)
@given(shape=st.lists(st.integers(0, 3), min_size=1, max_size=4), data=st.data())
def test_flatten_and_unflatten(shape, data, twins, same):
    """Dimensions become one and several again."""
    start = data.draw(st.integers(0, len(shape) - 1))
    end = data.draw(st.integers(start, len(shape) - 1))
    theirs, ours = twins("Flatten", start, end - data.draw(st.sampled_from([0, len(shape)])))
    x = torch.randn(shape)
    flat = ours(x.numpy())
    same(theirs(x), flat)
    if 0 not in shape:
        sizes_ = list(shape[start : end + 1])
        sizes_[0] = data.draw(st.sampled_from([sizes_[0], -1]))
        theirs, ours = twins("Unflatten", start, tuple(sizes_))
        same(theirs(torch.tensor(flat)), ours(flat))


@pytest.mark.parametrize(
    ("kind", "shape", "whole"),
    [
        ("Dropout", (200, 200), 0),
        ("Dropout1d", (100, 100, 4), 1),
        ("Dropout2d", (100, 100, 2, 2), 2),
        ("Dropout3d", (100, 100, 2, 1, 2), 3),
    ],
)
def test_dropout(kind, shape, whole):
    """In training a share of p is zero, whole channels at once, and the seed repeats it; evaluation is the identity."""
    layer, x = getattr(nn, kind)(p=0.25), np.ones(shape, np.float32)
    nn.manual_seed(3)
    first = layer(x)
    nn.manual_seed(3)
    assert (layer(x) == first).all()
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.02
    if whole:
        channels = first.reshape(100, 100, -1)
        assert (channels == channels[:, :, :1]).all()
    assert layer.eval()(x) is x
    assert not getattr(nn, kind)(p=1.0)(x).any()
    assert (getattr(nn, kind)(p=0.0)(x) == x).all()


@pytest.mark.parametrize("kind", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_dropout_keeps_mean_and_variance(kind):
    """What is dropped becomes selu's lower limit, and all is scaled so that mean 0 and variance 1 stay."""
    nn.manual_seed(0)
    x = np.random.default_rng(0).standard_normal((300, 300, 2)).astype(np.float32)
    y = getattr(nn, kind)(p=0.3)(x)
    assert abs(y.mean()) < 0.02
    assert abs(y.std() - 1) < 0.02
    assert y.dtype == np.float32
    assert not getattr(nn, kind)(p=1.0)(x).any()


def test_dropout_in_place():
    """`inplace=True` writes into the input."""
    x = np.ones(100, np.float32)
    assert nn.Dropout(0.5, inplace=True)(x) is x
    assert 0 in x


def test_identity_takes_anything():
    """Identity ignores its settings and gives what it was given."""
    x = object()
    assert nn.Identity(54, unused=0.1)(x) is x
