"""This library's engine under PyTorch's own names.

`install()` puts it there and `uninstall()` takes it away again, everywhere that PyTorch holds the functions: on the
classes, and in the modules of torch that import `save` and `load` by name. What somebody else has put there since stays.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import torch

# What can be replaced: the name here, and where PyTorch has it.
_METHODS = {
    "module_state_dict": (torch.nn.Module, "state_dict"),
    "module_load_state_dict": (torch.nn.Module, "load_state_dict"),
    "optimizer_state_dict": (torch.optim.Optimizer, "state_dict"),
    "optimizer_load_state_dict": (torch.optim.Optimizer, "load_state_dict"),
}
_FUNCTIONS = {"save": torch.serialization.save, "load": torch.serialization.load}

# What is installed: owner, name, what was there, what is there now.
_installed: list[tuple[Any, str, Any, Any]] = []


class Installation:
    """What `install` gives: in a `with`, the engine is in place until its end."""

    def __init__(self, first: bool) -> None:
        self._first = first

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An inner `with` leaves the engine to the outer one.
        if self._first:
            uninstall()


def install() -> Installation:
    """Put this engine under `Module.state_dict`, `Module.load_state_dict`, and their like, with PyTorch's exact effects.

    Warns where another library has replaced `torch.save` or `torch.load` before. Installing again changes nothing.
    As a context manager it is undone at the end of the outermost `with`.

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
            there = vars(torch)[name]
            warnings.warn(
                f"torch.{name} stays what {getattr(there, '__module__', 'another library')} has put there: install() before "
                "that is imported",
                stacklevel=2,
            )
    return Installation(first)


def uninstall() -> None:
    """Put PyTorch's own functions back; does nothing where they are in place. Partner of `install`.

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
    room = sys.modules[__package__]
    for ours, (owner, name) in _METHODS.items():
        if hasattr(room, ours):
            method: Callable[..., Any] = getattr(room, ours)
            if owner is torch.optim.Optimizer:
                # As PyTorch does: its compiler is kept out of optimizers' methods.
                method = torch._disable_dynamo(method)  # type: ignore[attr-defined]
            yield owner, name, method
    for ours, theirs in _FUNCTIONS.items():
        if hasattr(room, ours):
            for module in list(sys.modules.values()):
                if getattr(module, "__name__", "").partition(".")[0] == "torch":
                    for name in [name for name, value in vars(module).items() if value is theirs]:
                        yield module, name, getattr(room, ours)
