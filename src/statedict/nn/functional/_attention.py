"""Attention: softmax(query · keyᵀ) · value, plain and with PyTorch's projections around it."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from .._arrays import Array, Namespace, asarray, dtype_of, full, unwrap
from ._dropout import dropout
from ._linear import linear
from ._softmax import softmax


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Array:
    """softmax(query · keyᵀ · scale + mask) · value.

    Args:
        query: (…, queries, width).
        key: (…, keys, width).
        value: (…, keys, value width).
        attn_mask: broadcasts to (…, queries, keys); numbers to add to the scores, or booleans, True to include.
        dropout_p: the probability to drop a weight.
        is_causal: query i attends only to keys up to i.
        scale: None means 1 / √width.
        enable_gqa: the query's third dimension from the last is a multiple of key's and value's, which are repeated.

    Returns:
        (…, queries, value width); zeros for a query that may attend to no key.

    >>> query, key = np.zeros((2, 3, 8)), np.zeros((2, 5, 8))
    >>> scaled_dot_product_attention(query, key, key).shape
    (2, 3, 8)
    """
    xp, query, key, value, attn_mask = unwrap(query, key, value, attn_mask)
    if enable_gqa:
        key = xp.repeat(key, query.shape[-3] // key.shape[-3], axis=-3)
        value = xp.repeat(value, query.shape[-3] // value.shape[-3], axis=-3)
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError("Explicit attn_mask should not be set when is_causal=True")
        attn_mask = asarray(query, np.tri(query.shape[-2], key.shape[-2], dtype=bool))
    factor = 1 / sqrt(query.shape[-1]) if scale is None else scale
    added = None if attn_mask is None else _added(xp, query, attn_mask, keeps=True)
    weights = _weights(xp, query * factor, key, added)
    if added is not None:
        weights = xp.where(xp.isnan(weights), xp.zeros_like(weights), weights)
    return dropout(weights, dropout_p, training=dropout_p > 0) @ value


def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Array, Array | None]:
    """Compute `MultiheadAttention`; all arrays have the sequence first: (length, samples, width), or no samples.

    Returns:
        (output, weights): (queries, samples, width) and, if `need_weights`, (samples, queries, keys), averaged over the
        heads, or (samples, heads, queries, keys).

    >>> x, weight, out = np.zeros((5, 2, 8)), np.zeros((24, 8)), np.zeros((8, 8))
    >>> result = multi_head_attention_forward(x, x, x, 8, 2, weight, None, None, None, False, 0.0, out, None)
    >>> result[0].shape, result[1].shape
    ((5, 2, 8), (2, 5, 5))
    """
    xp, query, key, value, key_padding_mask, attn_mask = unwrap(query, key, value, key_padding_mask, attn_mask)
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint.")
    if query.shape[-1] != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got {query.shape[-1]}")
    has_samples = query.ndim == 3
    if not has_samples:
        query, key, value = (x[:, None, ...] for x in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask[None, ...]
    separate = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias, separate)
    q = _heads(xp, q, num_heads)
    k = _keys(xp, k, bias_k, static_k, num_heads, add_zero_attn)
    v = _keys(xp, v, bias_v, static_v, num_heads, add_zero_attn)
    masks = _masks(xp, q, k.shape[2], attn_mask, key_padding_mask)
    weights = dropout(_weights(xp, q * (1 / sqrt(q.shape[-1])), k, masks), dropout_p, training=training)
    mixed = xp.reshape(xp.permute_dims(weights @ v, (2, 0, 1, 3)), query.shape)
    output = linear(mixed, out_proj_weight, out_proj_bias)
    if need_weights and average_attn_weights:
        weights = xp.mean(weights, axis=1)
    if not has_samples:
        output, weights = output[:, 0, ...], weights[0, ...]
    return output, weights if need_weights else None


def _keys(xp: Namespace, x: Array, bias: Any, static: Any, heads: int, add_zero: bool) -> Array:
    """Return the keys or values of each head, with those that the settings add; `static` replaces `x` and its bias."""
    if bias is not None:
        x = xp.concat([x, xp.broadcast_to(unwrap(bias)[1], (1, *x.shape[1:]))], axis=0)
    x = _heads(xp, x, heads)
    x = x if static is None else xp.reshape(static, x.shape)
    return xp.concat([x, full(x, (*x.shape[:2], 1, x.shape[3]), 0)], axis=2) if add_zero else x


def _projected(query: Array, key: Array, value: Array, weight: Any, bias: Any, separate: Any) -> list[Array]:
    _, weight, bias = unwrap(weight, bias)
    width = query.shape[-1]
    thirds = [slice(i * width, (i + 1) * width) for i in range(3)]
    weights = separate or [weight[third, ...] for third in thirds]
    biases = [None] * 3 if bias is None else [bias[third] for third in thirds]
    return [linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases)]


def _heads(xp: Namespace, x: Array, heads: int) -> Array:
    """(length, samples, width) as (samples, heads, length, width / heads)."""
    return xp.permute_dims(xp.reshape(x, (x.shape[0], x.shape[1], heads, x.shape[2] // heads)), (1, 2, 0, 3))


def _masks(xp: Namespace, q: Array, keys: int, attn_mask: Any, key_padding_mask: Any) -> Array | None:
    """Return the numbers to add to the scores, (samples or 1, heads or 1, queries or 1, keys), or None.

    Added keys are never masked."""
    samples, heads = q.shape[:2]
    added = None
    if attn_mask is not None:
        mask = _added(xp, q, attn_mask, keeps=False)
        mask = mask[None, None, ...] if mask.ndim == 2 else xp.reshape(mask, (samples, heads, *mask.shape[1:]))
        added = _widened(xp, mask, keys)
    if key_padding_mask is not None:
        padding = _widened(xp, _added(xp, q, key_padding_mask, keeps=False)[:, None, None, :], keys)
        added = padding if added is None else added + padding
    return added


def _widened(xp: Namespace, mask: Array, keys: int) -> Array:
    more = keys - mask.shape[-1]
    return xp.concat([mask, full(mask, (*mask.shape[:-1], more), 0)], axis=-1) if more else mask


def _added(xp: Namespace, like: Array, mask: Array, keeps: bool) -> Array:
    """Return a mask as numbers to add; booleans equal to `keeps` are included."""
    if dtype_of(mask.dtype).kind != "bool":
        return mask
    nothing, everything = full(like, (), 0), full(like, (), float("-inf"))
    return xp.where(mask == keeps, nothing, everything)


def _weights(xp: Namespace, query: Array, key: Array, added: Array | None) -> Array:
    scores = query @ xp.matrix_transpose(key)
    # For a query that may attend to no key this is 0/0: NaN, as in PyTorch.
    with np.errstate(invalid="ignore"):
        return softmax(scores if added is None else scores + added, dim=-1)
