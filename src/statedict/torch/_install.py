"""Install this library's engine under PyTorch's own names.

`install()` replaces PyTorch's functions wherever PyTorch refers to them: on its classes, and in the modules of torch that
import `save` and `load` by name. `uninstall()` restores them, except those that other code has replaced in the meantime.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

# The replaceable functions: name here → owner and name in PyTorch.
_METHODS = {
    "module_state_dict": (torch.nn.Module, "state_dict"),
    "module_load_state_dict": (torch.nn.Module, "load_state_dict"),
    "optimizer_state_dict": (torch.optim.Optimizer, "state_dict"),
    "optimizer_load_state_dict": (torch.optim.Optimizer, "load_state_dict"),
}
_FUNCTIONS = {"save": torch.serialization.save, "load": torch.serialization.load}

# The installed replacements: owner, name, original, replacement.
_installed: list[tuple[Any, str, Any, Any]] = []


class Installation:
    """The result of `install`. As a context manager it uninstalls at the end."""

    def __init__(self, first: bool) -> None:
        self._first = first

    def __enter__(self) -> Installation:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # An inner `with` does not uninstall what the outer one installed.
        if self._first:
            uninstall()


def install() -> Installation:
    """Use this engine in `Module.state_dict`, `Module.load_state_dict` and related functions, with PyTorch's exact effects.

    Warns if another library has replaced `torch.save` or `torch.load`. Calling it again changes nothing. As a context
    manager it is undone at the end of the outermost `with`.

    >>> import torch
    >>> theirs = torch.nn.Module.state_dict
    >>> with install():
    ...     torch.nn.Module.state_dict is theirs
    False
    >>> torch.nn.Module.state_dict is theirs
    True
    """
    first = not _installed
    if first:
        for owner, name, ours in _replacements():
            _installed.append((owner, name, vars(owner)[name], ours))
            setattr(owner, name, ours)
        for name in sorted({"save", "load"} - {name for owner, name, _, _ in _installed if owner is torch}):
            current = vars(torch)[name]
            warnings.warn(
                f"torch.{name} was replaced by {getattr(current, '__module__', 'another library')} and is left as it is: "
                "call install() before importing that module",
                stacklevel=2,
            )
    return Installation(first)


def uninstall() -> None:
    """Restore PyTorch's own functions; does nothing if they are in place. Partner of `install`.

    >>> import torch
    >>> theirs = torch.save
    >>> _ = install()
    >>> torch.save is theirs
    False
    >>> uninstall()
    >>> torch.save is theirs
    True
    """
    while _installed:
        owner, name, theirs, ours = _installed.pop()
        if vars(owner)[name] is ours:
            setattr(owner, name, theirs)


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    package = sys.modules[__package__]
    for ours, (owner, name) in _METHODS.items():
        if hasattr(package, ours):
            method: Callable[..., Any] = getattr(package, ours)
            if owner is torch.optim.Optimizer:
                # As in PyTorch, whose compiler must not trace the methods of optimizers.
                method = torch._disable_dynamo(method)  # type: ignore[attr-defined]
            yield owner, name, method
    for ours, theirs in _FUNCTIONS.items():
        if hasattr(package, ours):
            for module in list(sys.modules.values()):
                if getattr(module, "__name__", "").partition(".")[0] == "torch":
                    for name in [name for name, value in vars(module).items() if value is theirs]:
                        yield module, name, getattr(package, ours)
