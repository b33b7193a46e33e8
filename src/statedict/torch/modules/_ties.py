"""Tied tensors of a model: two names of one tensor must not have different values in a state."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from statedict.state import Compound, Leaf
from statedict.tree import Slots, differing_ties

from ..tensors._copy_pairs import ORDINARY, addresses
from ..tensors._dtypes import TORCH_DTYPES
from ..tensors._wrapper import is_wrapped, is_wrapper
from ._fits import read_now


def contradictions(
    slots: Slots, values: Sequence[Any], places: Sequence[int], distinct: int, *, verify: bool
) -> dict[int, str]:
    """Find slots whose tensor has a different value under an earlier name: index → error text.

    `values` are the checked values. `places[i]` is equal for tensors that may be the same, and 0 for tensors to be skipped;
    `distinct` is the number of different places. Earlier batches of the same load are included.
    """
    waiting = slots.ties.setdefault("waiting", [])
    first: dict[Hashable, tuple[str, Any, Any]] = slots.ties.setdefault("first", {})
    waiting.append((slots.keys, slots.current, values, places))
    if len(waiting) == 1 and not first and distinct == len(places):
        # Most loads are one batch without ties. It is examined only if another batch follows.
        return {}
    found: dict[int, str] = {}
    while waiting:
        batch = waiting.pop(0)
        for index, (key, current, value, place) in enumerate(zip(*batch)):
            if not place:
                continue
            # The reference to the tensor prevents reuse of its address.
            other, theirs, _ = first.setdefault((place, *_geometry(current)), (key, value, current))
            if other != key and not waiting and not same_elements(theirs, value, current.dtype, verify=verify):
                found[index] = differing_ties(other, key)
    return found


def places(tensors: Sequence[Any]) -> list[int]:
    """The address of each tensor; a negative number that stands for the object if it wraps others."""
    places = addresses(tensors)
    if ORDINARY.issuperset(map(type, tensors)):
        return places
    return [-id(tensor) if is_wrapper(tensor) else place for tensor, place in zip(tensors, places)]


def same_elements(a: Any, b: Any, dtype: torch.dtype, *, verify: bool) -> bool:
    """Whether two values have the same elements after conversion to one dtype, compared bitwise (NaN equals itself)."""
    if a is b:
        return True
    if isinstance(a, Leaf) and isinstance(b, Leaf) and a.identity == b.identity:
        return True
    if isinstance(a, Compound) and isinstance(b, Compound) and is_wrapped(a):
        return a.facts == b.facts and all(
            role in b.parts and same_elements(part, b.parts[role], TORCH_DTYPES[part.spec.dtype], verify=verify)
            for role, part in a.parts.items()
        )
    try:
        one, two = (read_now(value, verify=verify).detach().to("cpu", dtype) for value in (a, b))
        if one.layout is not torch.strided or two.layout is not torch.strided:
            one, two = one.to_dense(), two.to_dense()
        return torch.equal(*(t.reshape(-1).resolve_conj().resolve_neg().view(torch.uint8) for t in (one, two)))
    except (RuntimeError, AttributeError, TypeError):
        # The elements cannot be compared (meta, lazy, not a tensor): the slot's own check reports that.
        return True


def _geometry(tensor: Any) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
