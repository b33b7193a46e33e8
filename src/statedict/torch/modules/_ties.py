"""Tensors of a model that are one: two names must not bring it two values."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from statedict.state import Leaf
from statedict.tree import Slots

from ._fits import read_now


def contradictions(
    slots: Slots, values: Sequence[Any], places: Sequence[int], distinct: int, *, verify: bool
) -> dict[int, str]:
    """Slots whose tensor got another value under an earlier name, by index, with what is wrong.

    `values` are the slots' values as they were checked; `places[i]` is equal for tensors that may be one, and 0 for those
    that are not looked at; `distinct` is how many different ones there are. Earlier batches of the same load count too.
    """
    waiting = slots.ties.setdefault("waiting", [])
    first: dict[Hashable, tuple[str, Any, Any]] = slots.ties.setdefault("first", {})
    waiting.append((slots.keys, slots.current, values, places))
    if len(waiting) == 1 and not first and distinct == len(places):
        # Most loads are one batch without ties: nothing of it is looked at unless another batch comes.
        return {}
    found: dict[int, str] = {}
    while waiting:
        batch = waiting.pop(0)
        for index, (key, current, value, place) in enumerate(zip(*batch)):
            if not place:
                continue
            # Held on to, so that no address is used again.
            other, theirs, _ = first.setdefault((place, *_geometry(current)), (key, value, current))
            if other != key and not waiting and not same_elements(theirs, value, current.dtype, verify=verify):
                found[index] = (
                    f'While copying the parameter named "{key}", it was found to be one tensor with "{other}" in the '
                    "model, and the checkpoint has different values for the two. Leave one of them out, "
                    "or untie them in the model."
                )
    return found


def same_elements(a: Any, b: Any, dtype: torch.dtype, *, verify: bool) -> bool:
    """Whether two values are the same elements once they are of one dtype: bit by bit, so that NaN equals itself."""
    if a is b:
        return True
    if isinstance(a, Leaf) and isinstance(b, Leaf) and a.shown == b.shown:
        return True
    try:
        one, two = (read_now(value, verify=verify).detach().to("cpu", dtype) for value in (a, b))
        if one.layout is not torch.strided or two.layout is not torch.strided:
            one, two = one.to_dense(), two.to_dense()
        return torch.equal(*(t.reshape(-1).resolve_conj().resolve_neg().view(torch.uint8) for t in (one, two)))
    except (RuntimeError, AttributeError, TypeError):
        # No elements to compare (meta, lazy, no tensor at all): the slot's own check says so.
        return True


def _geometry(tensor: Any) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
