"""Save, load, copy, rename, merge and inspect the state of PyTorch models, with or without torch.

    save, load, open                   write a file; read all of it; open it lazily
    state_dict, load_state_dict        the state of a module or optimizer; load one into it
    snapshot                           an independent copy of a state
    match, audit                       infer renaming rules; find what would not be saved, moved or trained
    diff, merge                        compare two states; merge several
    CheckpointManager                  the checkpoints of a training run: save, keep, resume

Importing this takes a few milliseconds: numpy and torch are imported by the calls that need them. `statedict.nn` (modules
without torch), `statedict.maps` (renaming rules for well-known models) and `statedict.torch` (PyTorch's function names on
this engine) are imported at their first use.
"""

from __future__ import annotations

import typing as _typing
from importlib import import_module as _import_module

from ._api import audit, load, load_state_dict, open, save, snapshot, state_dict
from ._compare import diff, match, merge
from .errors import LoadError, StateDictError
from .state import StateDict

if _typing.TYPE_CHECKING:
    from . import maps, nn, torch
    from .formats import Checkpoint, Limits
    from .plan import KeyMap, LoadReport
    from .training import CheckpointManager, any_of, at_most, best, every, last, on_preemption, within

__all__ = [
    "Checkpoint", "CheckpointManager", "KeyMap", "Limits", "LoadError", "LoadReport", "StateDict", "StateDictError",
    "any_of", "at_most", "audit", "best", "diff", "every", "last", "load", "load_state_dict", "maps", "match", "merge", "nn",
    "on_preemption", "open", "save", "snapshot", "state_dict", "torch", "within",
]  # fmt: skip

# Names imported at their first use, and the subpackage of each.
_LAZY = {
    "maps": "maps",
    "nn": "nn",
    "torch": "torch",
    "Checkpoint": "formats",
    "Limits": "formats",
    "KeyMap": "plan",
    "LoadReport": "plan",
    **dict.fromkeys(
        ("CheckpointManager", "any_of", "at_most", "best", "every", "last", "on_preemption", "within"), "training"
    ),
}


if not _typing.TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> _typing.Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        package = _import_module(f"{__name__}.{_LAZY[name]}")
        return package if name == _LAZY[name] else getattr(package, name)


def __dir__() -> list[str]:
    return __all__
