"""`Module.state_dict` and `Module.load_state_dict` over this library's engine, with PyTorch's signatures and effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from statedict import tree

from ._host import HOST


def module_state_dict(
    self: torch.nn.Module, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
) -> Any:
    """Return the state of a module tree, as `self.state_dict(...)` does. Values are live aliases.

    >>> module_state_dict(torch.nn.Linear(2, 1)).keys()
    odict_keys(['weight', 'bias'])
    """
    destination, prefix, keep_vars = tree.named_arguments(args, destination, prefix, keep_vars)
    return tree.read(HOST, self, destination=destination, prefix=prefix, keep_vars=keep_vars)


def module_load_state_dict(
    self: torch.nn.Module, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
) -> Any:
    """Load a state into a module tree, with the effects, errors and result of `self.load_state_dict(...)`.

    Raises RuntimeError with PyTorch's text if names are missing or unexpected (`strict`) or tensors do not fit; everything
    that fits was loaded by then. (`statedict.load_state_dict` changes nothing in that case.)

    >>> model = torch.nn.Linear(2, 1)
    >>> module_load_state_dict(model, model.state_dict())
    <All keys matched successfully>
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    outcome = tree.write(
        HOST, self, state_dict, strict=strict, assign=assign, rules=tree.EXACT, judge=lambda outcome: None
    )
    text = outcome.refusal(type(self).__name__)
    if text is not None:
        raise RuntimeError(text)
    return HOST.incompatible(outcome.missing, outcome.unexpected)
