"""Examine many tensors column-wise: each property of all tensors in one loop in C.

This takes 0.6 µs a tensor; reading the same attributes in a Python loop takes 2. Thousands of tensors have few different
kinds, so everything else is decided once for each kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from operator import attrgetter
from typing import Any, NamedTuple

import torch

from ._copy_pairs import ORDINARY
from ._dtypes import DTYPES_OF_TORCH

_FACTS = attrgetter("__class__", "dtype", "shape", "is_cpu", "requires_grad")
_LAYOUT, _STRIDE = attrgetter("layout"), torch.Tensor.stride
_IS_NEG, _IS_CONJ = torch.Tensor.is_neg, torch.Tensor.is_conj
_STRIDED = {torch.strided}
_DTYPES = frozenset(theirs for theirs, ours in DTYPES_OF_TORCH.items() if ours.kind != "quantized")


class Kind(NamedTuple):
    """The properties of a strided tensor on the CPU, except its position in memory."""

    type: type[Any]
    dtype: torch.dtype
    shape: torch.Size
    is_cpu: bool
    requires_grad: bool
    strides: tuple[int, ...]


class Kinds(NamedTuple):
    """The different kinds, in the order of their first tensors, and the number of each tensor's kind."""

    kinds: list[Kind]
    which: list[int]


def kinds_of(tensors: Sequence[Any]) -> Kinds | None:
    """Return the kinds of tensors; None if one is not strided, not on the CPU, quantised, conjugated or negated."""
    if not ORDINARY.issuperset(map(type, tensors)) or not _STRIDED.issuperset(map(_LAYOUT, tensors)):
        return None
    numbers: defaultdict[Any, int] = defaultdict(count().__next__)
    try:
        which = list(map(numbers.__getitem__, zip(map(_FACTS, tensors), map(_STRIDE, tensors))))
    except RuntimeError:
        # A nested tensor has no shape.
        return None
    kinds = [Kind._make((*facts, strides)) for facts, strides in numbers]
    if not all(kind.is_cpu and kind.dtype in _DTYPES for kind in kinds) or any(map(_IS_NEG, tensors)):
        return None
    if any(kind.dtype.is_complex for kind in kinds) and any(map(_IS_CONJ, tensors)):
        return None
    return Kinds(kinds, which)


def examples_of(tensors: Sequence[Any]) -> tuple[Sequence[int], Sequence[int]]:
    """Return the index of a tensor of each kind, and the number of each tensor's kind; without kinds, each is its own."""
    found = kinds_of(tensors)
    each = range(len(tensors))
    return (each, each) if found is None else (list(dict(zip(found.which, each)).values()), found.which)
