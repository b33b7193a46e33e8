"""Load any object with `state_dict` and `load_state_dict` (schedulers, scalers, averagers, data loaders), all or nothing.

The object's own loader receives a copy of the state, so that it can neither keep nor change parts of it, and if it raises,
the object is restored. (PyTorch's schedulers keep the lists of the state that they load, and `CyclicLR` and `LambdaLR`
modify the dict itself.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from statedict.errors import NotAStateError
from statedict.state import Opaque, every, raw_values
from statedict.tree import Judge, Outcome, refuse

from ..snapshots._copy_tree import independent, values_of
from ._rollback import unchanged_on_error


def read_stateful(obj: Any) -> Any:
    """Return `obj.state_dict()`; raises NotAStateError (a TypeError) if the object lacks this method.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    >>> read_stateful(torch.optim.lr_scheduler.StepLR(optimizer, step_size=30))["step_size"]
    30
    """
    if not callable(getattr(obj, "state_dict", None)):
        raise NotAStateError(f"{type(obj).__qualname__} has no state_dict method, so it cannot be saved")
    return obj.state_dict()


def write_stateful(
    obj: Any, state: Any, *, strict: bool = True, verify: bool = True, judge: Judge | None = None
) -> Outcome:
    """Pass a copy of `state` to `obj.load_state_dict`; if anything raises, the object is unchanged.

    The Outcome's names are the keys of the state. If a PyTorch scheduler has a setting that the state lacks, the state was
    saved from another class: an error if `strict` (private settings differ between versions and are ignored). Additional
    keys are unexpected, and loaded. Loaders of other objects check the state themselves. Inert objects of unknown classes
    are an error. `judge` is called before anything changes; it raises or returns. Without a judge, LoadError is raised for
    the errors. `verify` checks the checksums of tensors in a file. An exception of the object's loader is passed on, with a
    note.
    """
    if not callable(getattr(obj, "load_state_dict", None)):
        raise NotAStateError(
            f"{type(obj).__qualname__} has no load_state_dict method, so nothing can be loaded into it"
        )
    outcome = _outcome(obj, state, strict)
    (judge or refuse(type(obj).__name__))(outcome)
    source = independent(state, verify=verify)
    with unchanged_on_error(obj, tensors=_shown(obj)):
        obj.load_state_dict(source)
    return outcome


def _outcome(obj: Any, state: Any, strict: bool) -> Outcome:
    # Not strict: schedulers of different PyTorch versions have different settings, so other names alone are not errors.
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
        kind = type(obj).__name__
        outcome.errors.append(f"the state lacks {missing}, which {kind} has: it was probably saved from another class")
    outcome.errors += [f"the state contains an object of the unknown class {path}" for path in _unknown(state)]
    return outcome


def _unknown(state: Any) -> list[str]:
    return list(dict.fromkeys(value.path for value in every(state) if isinstance(value, Opaque)))


def _shown(obj: Any) -> list[torch.Tensor]:
    """The tensors in the object's state: its loader may write into them, whatever their size."""
    state = read_stateful(obj) if callable(getattr(obj, "state_dict", None)) else None
    return [value for value in values_of(state) if isinstance(value, torch.Tensor)]
