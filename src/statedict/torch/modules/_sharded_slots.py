"""Slots of sharded models: a DTensor is loaded as pairs of a view of its local tensor and a region of the value.

Up to here, everything goes by the shape of the whole tensor. The pairs are filled like those of any other tensor, by each
rank for itself, with only the bytes that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from statedict.errors import LoadError, PartError
from statedict.state import Box, Compound, Leaf, LocalBox, leaf_of, materialize, region
from statedict.tree import Fit, Slots

from ..tensors._copy_pairs import failed
from ..tensors._dtensor import is_sharded, local_boxes, local_of
from ..tensors._library import TORCH
from ._fits import MisfitError, checked, is_on_meta, shape_of, whole_here


def fit_sharded(slots: Slots, fit: Callable[[Slots], Fit]) -> Fit:
    """Decide about slots of which some are DTensors, or have DTensors as values: `fit` decides about the pairs."""
    local = Slots(assign=slots.assign, ties=slots.ties)
    owners: list[int] = []
    problems: dict[int, str] = {}
    for index, (key, current, value) in enumerate(zip(slots.keys, slots.current, slots.values)):
        try:
            pairs = local_pairs(key, current, value)
        except MisfitError as misfit:
            problems[index] = str(misfit)
            continue
        for tensor, part in pairs:
            local.add(key, tensor, part, slots.places[index] if slots.assign else (None, ""))
        owners += [index] * len(pairs)
    found = fit(local)
    failed_owners = {owners[index] for index in found.failed} | problems.keys()
    # A slot with several pairs is loaded completely or not at all.
    found.failed.update(index for index, owner in enumerate(owners) if owner in failed_owners)
    errors = [*dict.fromkeys(found.errors), *problems.values()]
    return Fit(found.act, errors, list(dict.fromkeys(found.casts)), list(dict.fromkeys(found.empty)), failed_owners)


def local_pairs(key: str, current: Any, value: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of a slot: views of its local tensor, and the part of the value for each.

    A pair of ordinary tensors, or one that does not fit, is returned as it is. Raises MisfitError if this process does not
    have the elements.
    """
    if not is_sharded(current):
        return [(current, _aliased(whole_here(key, current, leaf_of(value))) if is_sharded(value) else value)]
    value = checked(key, current, value)
    boxes = boxes_in(key, current, value)
    local = local_of(current)
    return [(local[_slices(each.local)], _part(key, current, value, each.whole)) for each in boxes]


def boxes_in(key: str, current: Any, value: Any) -> list[LocalBox]:
    """Return the boxes of a sharded slot, one without elements if its shard is empty; raises MisfitError if unknown."""
    try:
        boxes = local_boxes(current)
    except LoadError as error:
        raise _misfit(key, current, value, error) from error
    nothing = Box((0,) * current.ndim, tuple(local_of(current).shape))
    return boxes or [LocalBox(nothing, nothing)]


def _part(key: str, current: Any, value: Any, box: Box) -> Any:
    try:
        if is_sharded(value):
            value = leaf_of(value)
        if isinstance(value, (Leaf, Compound)):
            return _aliased(region(value, box))
        return value.detach()[_slices(box)]
    except (PartError, TypeError, RuntimeError) as error:
        raise _misfit(key, current, value, error) from error


def _aliased(leaf: Leaf) -> Any:
    """Return a leaf of live memory as a tensor over that memory, so that a copy to itself is noticed."""
    if is_on_meta(leaf) or not leaf.storage.is_live:
        return leaf
    return materialize([leaf], TORCH, mapped=True, verify=False)[0]


def _misfit(key: str, current: Any, value: Any, error: Exception) -> MisfitError:
    return MisfitError(failed(key, current.shape, shape_of(value), RuntimeError(str(error))))


def updated(modules: Iterable[Any]) -> None:
    """Let FSDP2 take note that parameters were replaced: it keeps references to them, which its own post-hooks renew."""
    for module in {id(module): module for module in modules}.values():
        for hook in module._load_state_dict_post_hooks.values():
            if str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp."):
                hook(module, None)


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(at, at + count) for at, count in zip(*box))
