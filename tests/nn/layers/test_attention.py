"""Attention and transformers against PyTorch's, on random settings and masks."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn


@st.composite
def attentions(draw):
    heads = draw(st.integers(1, 3))
    width = heads * draw(st.integers(1, 3))
    chosen = {
        "bias": draw(st.booleans()),
        "add_bias_kv": draw(st.booleans()),
        "add_zero_attn": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
    }
    if draw(st.booleans()):
        chosen |= {"kdim": draw(st.integers(1, 4)), "vdim": draw(st.integers(1, 4))}
    return (width, heads), chosen


@settings(max_examples=60)
@given(
    drawn=attentions(),
    lengths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    samples=st.sampled_from([None, 2]),
    masks=st.tuples(*[st.sampled_from([None, "bool", "float"])] * 2),
    weights=st.booleans(),
    averaged=st.booleans(),
)
@pytest.mark.filterwarnings("ignore:Support for mismatched")
def test_multihead_attention(drawn, lengths, samples, masks, weights, averaged, twins, same):
    """Output and weights are PyTorch's, for every kind of mask, width and extra key."""
    (width, heads), chosen = drawn
    queries, keys = lengths
    theirs, ours = twins("MultiheadAttention", width, heads, **chosen)

    def drawn_like(length, size):
        shape = [length, size]
        if samples is not None:
            shape.insert(0 if chosen["batch_first"] else 1, samples)
        return torch.randn(shape)

    def mask(kind, shape):
        if kind is None:
            return None
        hidden = torch.rand(shape) < 0.4
        hidden[..., 0] = False
        return hidden if kind == "bool" else torch.zeros(shape).masked_fill(hidden, -float("inf"))

    q, k, v = drawn_like(queries, width), drawn_like(keys, theirs.kdim), drawn_like(keys, theirs.vdim)
    batch = () if samples is None else (samples,)
    settings_ = {
        "key_padding_mask": mask(masks[0], (*batch, keys)),
        "attn_mask": mask(masks[1], (queries, keys) if samples is None else (samples * heads, queries, keys)),
    }
    more = {"need_weights": weights, "average_attn_weights": averaged}
    expected = theirs(q, k, v, **settings_, **more)
    own = {name: None if value is None else value.numpy() for name, value in settings_.items()}
    same(expected, ours(q.numpy(), k.numpy(), v.numpy(), **own, **more))


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    keys=st.integers(1, 4),
    kind=st.sampled_from([None, "bool", "float", "causal"]),
    scale=st.sampled_from([None, 0.3]),
    groups=st.integers(1, 2),
)
def test_scaled_dot_product_attention(shape, keys, kind, scale, groups, same):
    """The function is PyTorch's, masked or causal, also with fewer heads of keys; a query that sees nothing gives zeros."""
    torch.manual_seed(0)
    samples, heads, queries, width = shape
    q = torch.randn(samples, heads * groups, queries, width)
    k, v = torch.randn(2, samples, heads, keys, width)
    mask = None
    if kind in ("bool", "float"):
        mask = torch.rand(queries, keys) < 0.6
        mask = mask if kind == "bool" else torch.zeros(queries, keys).masked_fill(~mask, -float("inf"))
    chosen = {"is_causal": kind == "causal", "scale": scale, "enable_gqa": groups > 1}
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, **chosen)
    own = None if mask is None else mask.numpy()
    actual = nn.functional.scaled_dot_product_attention(q.numpy(), k.numpy(), v.numpy(), own, **chosen)
    same(expected, actual)


@settings(max_examples=25)
@given(
    norm_first=st.booleans(),
    batch_first=st.booleans(),
    bias=st.booleans(),
    activation=st.sampled_from(["relu", "gelu"]),
    causal=st.booleans(),
    padded=st.booleans(),
)
def test_transformers(norm_first, batch_first, bias, activation, causal, padded, twins, same):
    """An encoder and a decoder of two layers give what PyTorch's give, masked and not."""
    with warnings.catch_warnings():
        # PyTorch says which of its fast paths it will not take.
        warnings.simplefilter("ignore")
        theirs, ours = twins(
            "Transformer", 6, 2, 2, 2, 8, 0.0, activation,
            batch_first=batch_first, norm_first=norm_first, bias=bias,
        )  # fmt: skip
    source, target = torch.randn(3, 2, 6), torch.randn(4, 2, 6)
    if batch_first:
        source, target = source.transpose(0, 1), target.transpose(0, 1)
    masks = {}
    if causal:
        masks["tgt_mask"] = torch.nn.Transformer.generate_square_subsequent_mask(4)
    if padded:
        hidden = torch.tensor([[False, False, True], [False, False, False]])
        masks |= {"src_key_padding_mask": hidden, "memory_key_padding_mask": hidden}
    own = {name: mask.numpy() for name, mask in masks.items()}
    same(theirs.eval()(source, target, **masks), ours.eval()(source.numpy(), target.numpy(), **own))


def test_the_causal_mask(same):
    """`generate_square_subsequent_mask` is PyTorch's."""
    same(torch.nn.Transformer.generate_square_subsequent_mask(3), nn.Transformer.generate_square_subsequent_mask(3))


def test_settings_that_cannot_be(both, raised):
    """Bad settings are refused with the same kinds of errors."""
    for made in (
        lambda nn, x: nn.MultiheadAttention(4, 3),
        lambda nn, x: nn.MultiheadAttention(0, 1),
        lambda nn, x: nn.TransformerEncoderLayer(4, 2, activation="sin"),
        lambda nn, x: nn.MultiheadAttention(4, 2)(x, x, x, is_causal=True),
    ):
        kinds = {
            (raised(lambda lib=lib, made=made: made(lib.nn, lib.xp.zeros((3, 1, 4), dtype=lib.xp.float32))) or [None])[
                0
            ]
            for lib in both
        }
        assert len(kinds) == 1
        assert kinds != {None}


def test_attention_weights_can_be_dropped():
    """`dropout_p=1` drops every weight."""
    x = np.ones((1, 1, 3, 2), np.float32)
    assert not nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=1.0).any()
