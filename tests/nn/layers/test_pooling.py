"""Pooling against PyTorch's, on random settings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def pools(draw, dilated):
    """(dimensions, settings, input's shape) of a pool whose output is not empty."""
    count = draw(st.integers(1, 3))
    kernel = draw(st.tuples(*[st.integers(1, 4)] * count))
    chosen = {
        "kernel_size": kernel,
        "stride": draw(st.one_of(st.none(), st.tuples(*[st.integers(1, 3)] * count))),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    if dilated:
        chosen["dilation"] = draw(st.tuples(*[st.integers(1, 2)] * count))
    lengths = draw(st.tuples(*[st.integers(8, 11)] * count))
    return count, chosen, (*draw(st.sampled_from([(), (2,)])), 2, *lengths)


@settings(max_examples=80)
@given(drawn=pools(dilated=True), indices=st.booleans())
def test_max_pools(drawn, indices, twins, same):
    """MaxPool1d, 2d and 3d give PyTorch's values, and the places where they were."""
    count, chosen, shape = drawn
    theirs, ours = twins(f"MaxPool{count}d", return_indices=indices, **chosen)
    # Few different numbers, so that there are ties.
    x = torch.randint(0, 9, shape).float()
    same(theirs(x), ours(x.numpy()))


@settings(max_examples=80)
@given(drawn=pools(dilated=False), counted=st.booleans(), divisor=st.one_of(st.none(), st.integers(1, 9)))
def test_average_pools(drawn, counted, divisor, twins, same):
    """AvgPool1d, 2d and 3d divide by the same counts as PyTorch's."""
    count, chosen, shape = drawn
    if count > 1:
        chosen["divisor_override"] = divisor
    theirs, ours = twins(f"AvgPool{count}d", count_include_pad=counted, **chosen)
    x = torch.randn(shape)
    same(theirs(x), ours(x.numpy()))


@settings(max_examples=40)
@given(
    count=st.integers(1, 3),
    norm=st.sampled_from([1, 2, 3]),
    kernel=st.integers(1, 3),
    stride=st.one_of(st.none(), st.integers(1, 3)),
    ceil=st.booleans(),
)
def test_power_pools(count, norm, kernel, stride, ceil, twins, same):
    """LPPool1d, 2d and 3d give PyTorch's norms."""
    theirs, ours = twins(f"LPPool{count}d", norm, kernel, stride, ceil)
    x = torch.rand(2, 3, *(7, 8, 9)[:count])
    same(theirs(x), ours(x.numpy()))


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(1, 3), kind=st.sampled_from(["Avg", "Max"]))
def test_adaptive_pools(data, count, kind, twins, same):
    """Adaptive pools choose PyTorch's windows, whether or not the lengths divide; None keeps a dimension."""
    lengths = data.draw(st.tuples(*[st.integers(1, 9)] * count))
    size = data.draw(st.tuples(*[st.integers(1, 9)] * count))
    if count > 1 and data.draw(st.booleans()):
        size = (None, *size[1:])
    extra = {"return_indices": data.draw(st.booleans())} if kind == "Max" else {}
    theirs, ours = twins(f"Adaptive{kind}Pool{count}d", size if count > 1 else size[0], **extra)
    x = torch.randint(0, 9, (2, 3, *lengths)).float()
    same(theirs(x), ours(x.numpy()))


def test_not_a_number_counts_as_largest(twins, same):
    """NaN comes through a max pool, with its place."""
    theirs, ours = twins("MaxPool1d", 3, 1, return_indices=True)
    x = torch.tensor([[[1.0, float("nan"), 3.0, 4.0, 5.0]]])
    same(theirs(x), ours(x.numpy()))


@pytest.mark.parametrize(
    ("kind", "chosen", "shape"),
    [
        ("MaxPool1d", {"kernel_size": 2, "padding": 2}, (1, 4)),
        ("MaxPool1d", {"kernel_size": 5}, (1, 4)),
        ("AvgPool2d", {"kernel_size": 2, "divisor_override": 0}, (1, 4, 4)),
        ("AdaptiveAvgPool2d", {"output_size": 2}, (4, 4)),
        ("MaxPool2d", {"kernel_size": (2, 2, 2)}, (1, 4, 4)),
    ],
)
def test_what_cannot_be_pooled(both, raised, kind, chosen, shape):
    """Windows that do not fit raise RuntimeError, as PyTorch does."""
    for lib in both:
        x = lib.xp.zeros(shape, dtype=lib.xp.float32)
        assert raised(lambda lib=lib, x=x: getattr(lib.nn, kind)(**chosen)(x))[0] == "RuntimeError"
