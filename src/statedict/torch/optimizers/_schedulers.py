"""Anything with `state_dict` and `load_state_dict`: schedulers, gradient scalers, averagers, data loaders. All or nothing.

In goes such an object (and a state, whose tensors may be unread); out come its state, or an Outcome. The rule guarded: the
object's own loader gets a copy of the state, so that it can neither keep a piece of it nor change it, and when it raises
half-way the object is put back. PyTorch's schedulers share the source's lists, and `CyclicLR` and `LambdaLR` rearrange
the very dict that they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from statedict.errors import NotAStateError
from statedict.state import Opaque, every, raw_values
from statedict.tree import Outcome

from ..snapshots._copy_tree import independent, values_of
from ._judge import Judge, demand
from ._undo import unchanged_on_error


def read_stateful(obj: Any) -> Any:
    """What `obj.state_dict()` gives; raises NotAStateError (a TypeError) where there is no such method.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    >>> read_stateful(torch.optim.lr_scheduler.StepLR(optimizer, step_size=30))["step_size"]
    30
    """
    if not callable(getattr(obj, "state_dict", None)):
        raise NotAStateError(f"{type(obj).__qualname__} has no state_dict(), so its state cannot be had")
    return obj.state_dict()


def write_stateful(
    obj: Any, state: Any, *, strict: bool = True, verify: bool = True, judge: Judge | None = None
) -> Outcome:
    """Give a copy of `state` to `obj.load_state_dict`; whatever raises, the object is as it was.

    The Outcome's names are those of the state's first level. A setting that one of PyTorch's schedulers has and the state
    lacks shows that it is another class's: an error, when `strict` (private ones vary between versions, and are not
    missed). What the state has beyond the scheduler is unexpected, and loaded. Other objects' loaders judge for
    themselves. Inert data of unknown classes is an error. `judge` is called before anything changes: it raises, or
    returns; without one LoadError is raised for the errors. `verify` settles the checksums of what lies in a file. What
    the object's loader raises is passed on, with a note.
    """
    if not callable(getattr(obj, "load_state_dict", None)):
        raise NotAStateError(f"{type(obj).__qualname__} has no load_state_dict(), so nothing can be loaded into it")
    outcome = _outcome(obj, state, strict)
    (judge or demand(type(obj).__name__))(outcome)
    source = independent(state, verify=verify)
    with unchanged_on_error(obj, tensors=_shown(obj)):
        obj.load_state_dict(source)
    return outcome


def _outcome(obj: Any, state: Any, strict: bool) -> Outcome:
    # Versions of PyTorch differ in what their schedulers keep, so that other names are no errors by themselves.
    outcome = Outcome(strict=False)
    if isinstance(state, Mapping):
        values = raw_values(state)
        outcome.loaded = [str(key) for key in values]
        if isinstance(obj, torch.optim.lr_scheduler.LRScheduler):
            present = obj.state_dict()
            outcome.missing = [key for key in present if key not in values and not key.startswith("_")]
            outcome.unexpected = [str(key) for key in values if key not in present]
    if strict and outcome.missing:
        missing = ", ".join(map(repr, outcome.missing))
        outcome.errors.append(f"it has no {missing}, which {type(obj).__name__} has: is it another class's?")
    outcome.errors += [f"it holds data of the unknown class {path}, which is not loaded" for path in _unknown(state)]
    return outcome


def _unknown(state: Any) -> list[str]:
    return list(dict.fromkeys(value.path for value in every(state) if isinstance(value, Opaque)))


def _shown(obj: Any) -> list[torch.Tensor]:
    """The tensors that the object calls its state: its loader may write into them, however large they are."""
    state = read_stateful(obj) if callable(getattr(obj, "state_dict", None)) else None
    return [value for value in values_of(state) if isinstance(value, torch.Tensor)]
