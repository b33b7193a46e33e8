"""Convolutions against PyTorch's, on random settings."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn

sizes = st.integers(1, 3)


@st.composite
def convolutions(draw, transposed=False):
    """(dimensions, settings, input's shape) of a convolution that fits its input."""
    count = draw(st.integers(1, 3))
    each = st.tuples(*[sizes] * count)
    groups = draw(sizes)
    channels, outputs = groups * draw(sizes), groups * draw(sizes)
    chosen = {
        "kernel_size": draw(each),
        "stride": draw(each),
        "dilation": draw(each),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    if transposed:
        chosen["padding"] = draw(st.tuples(*[st.integers(0, 1)] * count))
        limits = [max(s, d) for s, d in zip(chosen["stride"], chosen["dilation"])]
        chosen["output_padding"] = tuple(draw(st.integers(0, limit - 1)) for limit in limits)
        least = 3
    else:
        chosen["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
        if draw(st.booleans()):
            chosen["padding"] = draw(st.tuples(*[st.integers(0, 2)] * count))
        else:
            chosen["padding"] = draw(st.sampled_from(["same", "valid"]))
            chosen["stride"] = (1,) * count
        least = 7
    lengths = draw(st.tuples(*[st.integers(least, least + 3)] * count))
    samples = draw(st.sampled_from([(), (1,), (3,)]))
    return count, (channels, outputs), chosen, (*samples, channels, *lengths)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=80)
@given(drawn=convolutions())
def test_convolutions(drawn, twins, same):
    """Conv1d, Conv2d and Conv3d give what PyTorch's give, with all paddings, groups and dilations."""
    count, channels, chosen, shape = drawn
    theirs, ours = twins(f"Conv{count}d", *channels, **chosen)
    x = torch.randn(shape)
    same(theirs(x), ours(x.numpy()))


@settings(max_examples=60)
@given(drawn=convolutions(transposed=True))
def test_transposed_convolutions(drawn, twins, same):
    """ConvTranspose1d, 2d and 3d give what PyTorch's give."""
    count, channels, chosen, shape = drawn
    theirs, ours = twins(f"ConvTranspose{count}d", *channels, **chosen)
    x = torch.randn(shape)
    try:
        expected = theirs(x)
    except RuntimeError:
        # Nothing would be left of the output.
        with pytest.raises(RuntimeError):
            ours(x.numpy())
        return
    same(expected, ours(x.numpy()))


def test_large_batches_are_taken_in_parts(twins, same, monkeypatch):
    """Columns beyond the size of a cache are made for some samples at a time, with the same result."""
    from statedict.nn.functional import _convolution

    theirs, ours = twins("Conv2d", 3, 4, 3, padding=1)
    x = torch.randn(7, 3, 8, 8)
    whole = ours(x.numpy())
    monkeypatch.setattr(_convolution, "_COLUMN_BYTES", 4 * 27 * 64 * 2)
    monkeypatch.setattr(_convolution, "_POSITIONS", 1)
    parts = ours(x.numpy())
    same(theirs(x), whole)
    same(theirs(x), parts)


def test_memory_of_columns_is_bounded():
    """64 images do not take 64 times the memory of one image's columns."""
    import tracemalloc

    layer = nn.Conv2d(8, 8, 5, padding=2)
    x = np.zeros((64, 8, 32, 32), np.float32)
    tracemalloc.start()
    layer(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns_of_all = 64 * 8 * 25 * 32 * 32 * 4
    assert peak < columns_of_all


@pytest.mark.parametrize("size", [(9, 11), (2, 4, 10, 12)])
def test_the_output_size_can_be_chosen(twins, same, size):
    """A transposed convolution takes the output's lengths, where some output padding gives them."""
    theirs, ours = twins("ConvTranspose2d", 3, 4, 3, stride=2, padding=1)
    x = torch.randn(2, 3, 5, 6)
    same(theirs(x, output_size=size), ours(x.numpy(), output_size=size))


def test_an_output_size_that_cannot_be(both, raised):
    """Sizes that no output padding gives are refused."""
    texts = []
    for lib in both:
        layer = lib.nn.ConvTranspose1d(1, 1, 3, stride=2)
        x = lib.xp.zeros((1, 1, 4), dtype=lib.xp.float32)
        texts.append(raised(lambda layer=layer, x=x: layer(x, output_size=[20])))
    assert texts[0][0] == texts[1][0] == "ValueError"
    assert texts[0][1].split(" (for")[0] == texts[1][1].split(" (for")[0]


@pytest.mark.parametrize(
    "settings_",
    [
        {"groups": 0},
        {"groups": 2},
        {"padding_mode": "mirror"},
        {"padding": "full"},
        {"padding": "same", "stride": 2},
    ],
)
def test_settings_that_cannot_be(both, raised, settings_):
    """Bad settings raise ValueError, as PyTorch does."""
    for lib in both:
        assert raised(lambda lib=lib: lib.nn.Conv1d(3, 3, 2, **settings_))[0] == "ValueError"


@pytest.mark.parametrize("shape", [(2, 4, 9), (2, 3, 9, 9), (3, 1)])
def test_inputs_that_do_not_fit(both, raised, shape):
    """Wrong channels, wrong dimensions and inputs that are too short raise RuntimeError."""
    for lib in both:
        layer = lib.nn.Conv1d(3, 2, 3)
        x = lib.xp.zeros(shape, dtype=lib.xp.float32)
        assert raised(lambda layer=layer, x=x: layer(x))[0] == "RuntimeError"
