"""What is given to `save` and `resume` by name: objects with a state, and values.

An object that can say its state (`state_dict`) and take it back (`load_state_dict`) has a file of its own. A value that JSON
gives back exactly lies in the manifest; any other in `values.pt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

from statedict import _api, _sources

from . import _manifest, _random

VALUES, RANDOM = "values", "random"
RESERVED = {VALUES, RANDOM, "manifest"}


class Sorted(NamedTuple):
    """The keyword arguments of a save, by where they go."""

    stateful: dict[str, Any]
    plain: dict[str, Any]
    other: dict[str, Any]


def sort(objects: Mapping[str, Any]) -> Sorted:
    """Tell objects from values; raises ValueError for a name that the layout needs itself."""
    for name in objects:
        if name in RESERVED:
            raise ValueError(f"{name!r} names a file of the checkpoint itself; give the object another name")
    result = Sorted({}, {}, {})
    for name, value in objects.items():
        if is_stateful(value):
            result.stateful[name] = value
        elif _manifest.survives(value):
            result.plain[name] = value
        else:
            result.other[name] = value
    return result


def numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as a manifest can hold them; raises TypeError for one that it would not give back."""
    found = {}
    for name, value in metrics.items():
        number = value.item() if callable(getattr(value, "item", None)) else value
        if not isinstance(name, str) or not _manifest.survives(number):
            raise TypeError(
                f"the metric {name!r} is {type(value).__name__}: a metric is a number, with text for its name"
            )
        found[name] = deepcopy(number)
    return found


def is_stateful(value: Any) -> bool:
    """Whether the value has a state to save and to load: a module, an optimizer, a scheduler, a scaler, a loader …"""
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def states(given: Sorted, *, random: bool, copied: bool = False) -> dict[str, Any]:
    """What goes into each file: the live state of each object, the values that JSON cannot hold, the random state.

    `copied`: it is copied before anything else happens, so that parameters may come as they are.
    """
    read = _sources.to_copy if copied else _api.state_dict
    found = {name: read(value, model=owner_of(value, given.stateful)) for name, value in given.stateful.items()}
    if given.other:
        found[VALUES] = given.other
    if random:
        found[RANDOM] = _random.read()
    return found


def owner(optimizer: Any, objects: Mapping[str, Any]) -> Any | None:
    """The object among `objects` whose named parameters the optimizer holds: it gives them their names."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for value in objects.values():
        if callable(getattr(value, "named_parameters", None)) and any(id(p) in held for p in value.parameters()):
            return value
    return None


def owner_of(value: Any, objects: Mapping[str, Any]) -> Any | None:
    """The owner of an optimizer's parameters; None for anything else."""
    return owner(value, objects) if is_optimizer(value) else None


def is_optimizer(value: Any) -> bool:
    return hasattr(value, "param_groups") and is_stateful(value)
