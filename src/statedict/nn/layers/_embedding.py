"""Lookup tables: Embedding and EmbeddingBag."""

from __future__ import annotations

from typing import Any, Self

from .. import functional as F
from .. import init
from .._arrays import put
from .._module import Module
from .._parameter import Parameter
from .._variable import raw
from ._new import parameter


class _Table(Module):
    """The weight, (num_embeddings, embedding_dim); initially normal, with zeros in the row `padding_idx`."""

    num_embeddings: int
    embedding_dim: int
    padding_idx: int | None

    def _set_weight(self, given: Any, freeze: bool, device: Any, dtype: Any) -> None:
        shape = (self.num_embeddings, self.embedding_dim)
        if given is None:
            self.weight = parameter(shape, device, dtype).requires_grad_(not freeze)
            self.reset_parameters()
            return
        if tuple(given.shape) != shape:
            raise AssertionError("Shape of weight does not match num_embeddings and embedding_dim")
        self.weight = Parameter(raw(given), requires_grad=not freeze)

    def _set_padding(self, padding_idx: int | None) -> None:
        if padding_idx is not None and not -self.num_embeddings <= padding_idx < self.num_embeddings:
            raise AssertionError("padding_idx must be within num_embeddings")
        self.padding_idx = None if padding_idx is None else padding_idx % self.num_embeddings

    def reset_parameters(self) -> None:
        """Reset the parameters to new initial values."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            put(raw(self.weight)[self.padding_idx], 0)


class Embedding(_Table):
    """Look up a row of a table for each integer: (*shape, embedding_dim).

    >>> nn.Embedding(10, 3)(np.array([[1, 2], [4, 5]])).shape
    (2, 2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self._set_padding(padding_idx)
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self._set_weight(_weight, _freeze, device, dtype)

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **settings: Any) -> Self:
        """Return an Embedding with the given table, (rows, width); `freeze` sets requires_grad=False."""
        rows, width = embeddings.shape
        return cls(rows, width, _weight=embeddings, _freeze=freeze, **settings)

    def forward(self, input: Any) -> Any:
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type)

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        parts += [f"padding_idx={self.padding_idx}"] * (self.padding_idx is not None)
        parts += [f"max_norm={self.max_norm}"] * (self.max_norm is not None)
        parts += [f"norm_type={self.norm_type}"] * (self.norm_type != 2)
        parts += [f"scale_grad_by_freq={self.scale_grad_by_freq}"] * bool(self.scale_grad_by_freq)
        parts += ["sparse=True"] * bool(self.sparse)
        return ", ".join(parts)


class EmbeddingBag(_Table):
    """The sum, mean or maximum of a table's rows, for each bag of integers: (bags, embedding_dim).

    >>> nn.EmbeddingBag(10, 3)(np.array([[1, 2], [4, 5]])).shape
    (2, 3)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self._set_padding(padding_idx)
        self.mode = mode
        self.sparse = sparse
        self.include_last_offset = include_last_offset
        self._set_weight(_weight, False, device, dtype)

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **settings: Any) -> Self:
        """Return an EmbeddingBag with the given table, (rows, width); `freeze` sets requires_grad=False."""
        rows, width = embeddings.shape
        bag = cls(rows, width, _weight=embeddings, **settings)
        bag.weight.requires_grad_(not freeze)
        return bag

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    def extra_repr(self) -> str:
        parts = [f"{self.num_embeddings}, {self.embedding_dim}"]
        parts += [f"max_norm={self.max_norm!r}"] * (self.max_norm is not None)
        parts += [f"norm_type={self.norm_type!r}"] * (self.norm_type != 2)
        parts += [f"scale_grad_by_freq={self.scale_grad_by_freq!r}"] * bool(self.scale_grad_by_freq)
        parts += [f"mode={self.mode!r}"]
        parts += [f"padding_idx={self.padding_idx!r}"] * (self.padding_idx is not None)
        return ", ".join(parts)
