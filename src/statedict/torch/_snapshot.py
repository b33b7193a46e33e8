"""Snapshots: independent copies of a state, made at memory bandwidth.

The input is a model, an optimizer, a scheduler, or a tree of dicts and lists with tensors; the result is a state of the same
structure on the CPU that later training does not change. It shares no memory with its input, and tied tensors stay tied.
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
    """Copy the state of `obj` into CPU memory, with its ties.

    `obj` is a `torch.nn.Module` (the result is a StateDict with its `_metadata`), an optimizer (a dict like
    `optimizer.state_dict()`, with `param_names` if they are known), any other object with a `state_dict()`, or a tree of
    dicts, lists and tuples. Values other than tensors are deep-copied; parameters become plain tensors. A CUDA model is
    copied into pinned memory with one synchronisation.

    `out` is an earlier snapshot that is no longer needed. Its tensors are overwritten and reused where their layout is the
    same; the others get new memory. This avoids the page faults of fresh memory, which cost several times the copy. Memory
    that `obj` uses is never reused.

    Raises NotAStateError (a TypeError) if `obj` has no state.

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
    raise NotAStateError(f"{type(obj).__qualname__} has no state: it is not a mapping and has no state_dict method")
