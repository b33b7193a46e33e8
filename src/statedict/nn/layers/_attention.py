"""MultiheadAttention."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .. import init
from .._arrays import unwrap
from .._module import Module
from ._linear import NonDynamicallyQuantizableLinear
from ._new import parameter


class MultiheadAttention(Module):
    """Multi-head attention with input and output projections: Vaswani et al., 2017.

    Parameters: in_proj_weight (3 · embed_dim, embed_dim), or, if key or value have other widths, q_proj_weight,
    k_proj_weight, v_proj_weight; in_proj_bias (3 · embed_dim,); with `add_bias_kv` bias_k and bias_v (1, 1, embed_dim);
    out_proj, a Linear.

    >>> x = np.zeros((2, 5, 8), np.float32)
    >>> output, weights = nn.MultiheadAttention(8, num_heads=2, batch_first=True)(x, x, x)
    >>> output.shape, weights.shape
    ((2, 5, 8), (2, 5, 5))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and num_heads={num_heads} "
                "instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        self._make_projections(device, dtype)
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim, device, dtype) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            if add_bias_kv:
                setattr(self, name, parameter((1, 1, embed_dim), device, dtype))
            else:
                setattr(self, name, None)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _make_projections(self, device: Any, dtype: Any) -> None:
        width = self.embed_dim
        apart = {"q_proj_weight": width, "k_proj_weight": self.kdim, "v_proj_weight": self.vdim}
        if self._qkv_same_embed_dim:
            self.in_proj_weight = parameter((3 * width, width), device, dtype)
            for name in apart:
                self.register_parameter(name, None)
        else:
            for name, inputs in apart.items():
                setattr(self, name, parameter((width, inputs), device, dtype))
            self.register_parameter("in_proj_weight", None)

    def _reset_parameters(self) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for name in ("bias_k", "bias_v"):
            if getattr(self, name) is not None:
                init.xavier_normal_(getattr(self, name))

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:
        """Compute attention.

        Args:
            query: (queries, samples, embed_dim), (queries, embed_dim), or with `batch_first` (samples, queries, …).
            key, value: likewise, with widths kdim and vdim.
            key_padding_mask: (samples, keys): True to ignore a key, or numbers to add to the scores.
            need_weights: also return the attention weights.
            attn_mask: (queries, keys) or (samples · heads, queries, keys): True to prevent attention, or numbers to add to
                the scores.
            average_attn_weights: return the mean of the weights over the heads, instead of each head's weights.
            is_causal: a hint that `attn_mask` is the causal mask, which must be given.

        Returns:
            (output, weights): the shape of the query, and (samples, queries, keys), (samples, heads, queries, keys) or None.
        """
        xp, query, key, value = unwrap(query, key, value)
        transposed = self.batch_first and query.ndim == 3
        if transposed:
            query, key, value = (xp.permute_dims(x, (1, 0, 2)) for x in (query, key, value))
        output, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return xp.permute_dims(output, (1, 0, 2)) if transposed else output, weights

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Missing in pickles of PyTorch 1.1.
        super().__setstate__({"_qkv_same_embed_dim": True, **state})
