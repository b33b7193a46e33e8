"""Snapshots: an independent copy of a state, at memory bandwidth.

In goes a model, an optimizer, a scheduler, or a tree of dicts and lists with tensors; out comes the same shape of state
on the CPU, which later training does not change. The rule guarded: nothing in it shares memory with what it was taken of,
and what was tied stays tied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import torch

from statedict import tree
from statedict.errors import NotAStateError
from statedict.state import StateDict

from .modules._host import HOST
from .optimizers._read import read_optimizer
from .snapshots._copy_tree import independent


@overload
def snapshot(obj: torch.nn.Module | StateDict, out: Any = None) -> StateDict: ...
@overload
def snapshot(obj: Any, out: Any = None) -> Any: ...
def snapshot(obj: Any, out: Any = None) -> Any:
    """An independent copy of the state of `obj`, in CPU memory, ties kept.

    `obj` is a `torch.nn.Module` (out comes a StateDict with its `_metadata`), an optimizer (a dict as
    `optimizer.state_dict()` gives, with `param_names` where they are known), anything else that has a `state_dict()`,
    or a tree of dicts, lists and tuples. Values that are no tensors are deep-copied; parameters come as plain tensors. A
    CUDA model is copied into pinned memory, with one wait.

    `out` is an earlier snapshot that is not needed any more: where a tensor of the same place has the same layout, its
    memory is overwritten and is the new snapshot's; the rest gets new memory. That saves the first touch of fresh
    memory, which costs several times the copy. Memory that is live in `obj` is never taken.

    Raises NotAStateError (a TypeError) where `obj` has no state.

    >>> model = torch.nn.Linear(2, 1)
    >>> best = snapshot(model)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> bool((best["weight"] == 0).all())
    False
    >>> best = snapshot(model, out=best)
    >>> bool((best["weight"] == 0).all())
    True
    """
    return independent(_state_of(obj), out, host=True)


def _state_of(obj: Any) -> Any:
    if isinstance(obj, torch.nn.Module):
        overridden = type(obj).state_dict is not torch.nn.Module.state_dict or "state_dict" in vars(obj)
        return StateDict(obj.state_dict()) if overridden else StateDict.adopt(*tree.peek(HOST, obj))
    if isinstance(obj, torch.optim.Optimizer):
        return read_optimizer(obj)
    if isinstance(obj, (Mapping, list, tuple, torch.Tensor)):
        return obj
    if callable(getattr(obj, "state_dict", None)):
        return obj.state_dict()
    raise NotAStateError(f"{type(obj).__qualname__} has no state: it is no mapping, and has no state_dict()")
