"""Save, load, copy, rename, merge and inspect the state of PyTorch models, with or without torch.

    save, load, open                   write a file; read all of it; open it lazily
    state_dict, load_state_dict        the state of a module or optimizer; load one into it
    snapshot                           an independent copy of a state
    match, audit                       infer renaming rules; find what would not be saved, moved or trained
    diff, merge                        compare two states; merge several
    CheckpointManager                  the checkpoints of a training run: save, keep, resume

Importing this takes a few milliseconds: numpy and torch are imported by the calls that need them. `statedict.nn` (modules
without torch) and `statedict.torch` (PyTorch's function names on this engine) are imported at their first use.
"""

from __future__ import annotations

import typing as _typing
from importlib import import_module as _import_module

from ._api import audit as audit
from ._api import diff as diff
from ._api import load as load
from ._api import load_state_dict as load_state_dict
from ._api import match as match
from ._api import merge as merge
from ._api import open as open
from ._api import save as save
from ._api import snapshot as snapshot
from ._api import state_dict as state_dict
from .errors import LoadError as LoadError
from .errors import StateDictError as StateDictError
from .state import StateDict as StateDict

if _typing.TYPE_CHECKING:
    from . import nn as nn
    from . import torch as torch
    from .formats import Checkpoint as Checkpoint
    from .formats import Limits as Limits
    from .plan import KeyMap as KeyMap
    from .plan import LoadReport as LoadReport
    from .training import CheckpointManager as CheckpointManager
    from .training import any_of as any_of
    from .training import best as best
    from .training import every as every
    from .training import last as last

__all__ = [
    "Checkpoint",
    "CheckpointManager",
    "KeyMap",
    "Limits",
    "LoadError",
    "LoadReport",
    "StateDict",
    "StateDictError",
    "any_of",
    "audit",
    "best",
    "diff",
    "every",
    "last",
    "load",
    "load_state_dict",
    "merge",
    "match",
    "nn",
    "open",
    "save",
    "snapshot",
    "state_dict",
    "torch",
]

# Names imported at their first use, and the subpackage of each.
_LAZY = {
    "nn": "nn",
    "torch": "torch",
    "Checkpoint": "formats",
    "Limits": "formats",
    "KeyMap": "plan",
    "LoadReport": "plan",
    **dict.fromkeys(("CheckpointManager", "any_of", "best", "every", "last"), "training"),
}


if not _typing.TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> _typing.Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        package = _import_module(f"{__name__}.{_LAZY[name]}")
        return package if name == _LAZY[name] else getattr(package, name)


def __dir__() -> list[str]:
    return __all__
