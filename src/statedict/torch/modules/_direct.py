"""Leaves that fill a model's tensors as they lie: same shape and dtype, elements one after the other on both sides.

Nothing is to be decided about such a pair, and its bytes move once. The quick looks here may say no too often.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch

from statedict.state import Leaf, Many, Spec, Storage, Traits

from ..tensors._copy_pairs import ORDINARY
from ..tensors._dtypes import DTYPES_OF_TORCH, TORCH_DTYPES

PLAIN_KINDS = frozenset({"float", "complex", "int", "uint", "bool"})
_SPEC, _STORAGE, _TRAITS, _LOCATION, _SOURCE = map(attrgetter, ("spec", "storage", "traits", "location", "source"))
_SHAPE, _DTYPE, _ON_CPU, _LAYOUT, _NESTED = map(attrgetter, ("shape", "dtype", "is_cpu", "layout", "is_nested"))
_TENSOR = torch.Tensor


def is_direct(tensor: Any, value: Any) -> bool:
    """Whether the value is a leaf of a file whose elements lie as the tensor's do, and the tensor has memory for them."""
    if (
        type(value) is not Leaf
        or type(tensor) not in ORDINARY
        or tensor.is_nested
        or tensor.layout is not torch.strided
    ):
        return False
    spec = value.spec
    return (
        tensor.is_cpu
        and tensor.shape == spec.shape
        and DTYPES_OF_TORCH.get(tensor.dtype) is spec.dtype
        and _lies_plainly(spec)
        and not (tensor.is_conj() or tensor.is_neg() or tensor.is_inference())
        and tensor.is_contiguous()
        and (tensor.data_ptr() or not tensor.numel())
        and _shows_plainly(value.traits)
        and _is_read(value.storage)
    )


def are_direct(tensors: Sequence[Any], values: Sequence[Any], rows: Many | None) -> bool:
    """Whether that holds for all pairs whose tensors have memory: a column at a time in C, 0.7 µs where each takes 4.

    `rows`: the values, where they are that."""
    if rows is not None:
        return _are_direct_rows(tensors, rows)
    if not ({Leaf}.issuperset(map(type, values)) and ORDINARY.issuperset(map(type, tensors))):
        return False
    specs, storages = list(map(_SPEC, values)), list(map(_STORAGE, values))
    # Leaves of one shape share their Spec.
    distinct = {id(spec): spec for spec in specs}
    if not all(spec.dtype in TORCH_DTYPES and _lies_plainly(spec) for spec in distinct.values()):
        return False
    dtypes = {number: TORCH_DTYPES[spec.dtype] for number, spec in distinct.items()}
    traits = {id(found): found for found in map(_TRAITS, values)}
    sources = dict(zip(map(id, map(_SOURCE, storages)), storages))
    return (
        all(map(_shows_plainly, traits.values()))
        and all(map(_is_read, sources.values()))
        and "meta" not in set(map(_LOCATION, storages))
        and _are_plain(tensors, [dtypes[id(spec)] for spec in specs], [spec.shape for spec in specs])
    )


def _are_direct_rows(tensors: Sequence[Any], rows: Many) -> bool:
    kinds = rows.kinds()
    return (
        all(kind.spec.dtype in TORCH_DTYPES and _lies_plainly(kind.spec) for kind in kinds)
        and all(_shows_plainly(kind.traits) and kind.location != "meta" for kind in kinds)
        and ORDINARY.issuperset(map(type, tensors))
        and _are_plain(
            tensors,
            rows.of_each(lambda kind: TORCH_DTYPES.get(kind.spec.dtype)),
            rows.of_each(lambda kind: kind.spec.shape),
        )
    )


def _are_plain(tensors: Sequence[Any], dtypes: list[Any], shapes: list[Any]) -> bool:
    """Whether tensors of ordinary classes have these dtypes and shapes, and lie plainly in the CPU's memory."""
    return (
        not any(map(_NESTED, tensors))
        and {torch.strided}.issuperset(map(_LAYOUT, tensors))
        and all(map(_ON_CPU, tensors))
        and list(map(_DTYPE, tensors)) == dtypes
        and list(map(_SHAPE, tensors)) == shapes
        and all(map(_TENSOR.is_contiguous, tensors))
        and not any(map(_TENSOR.is_inference, tensors))
        and not any(map(_TENSOR.is_neg, tensors))
        # Only complex tensors can be.
        and not (any(dtype.is_complex for dtype in set(dtypes)) and any(map(_TENSOR.is_conj, tensors)))
    )


def _lies_plainly(spec: Spec) -> bool:
    return spec.dtype.kind in PLAIN_KINDS and spec.is_contiguous


def _shows_plainly(traits: Traits) -> bool:
    return not (traits.conj or traits.neg)


def _is_read(storage: Storage) -> bool:
    """Whether the bytes are read from somewhere: live memory may be the tensor's own."""
    return storage.location != "meta" and not (isinstance(storage.key, tuple) and storage.key[0] == "memory")
