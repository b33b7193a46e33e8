"""The state of a neural network as a value: capture it, copy it, select, rename, compare, save, load it, put it back.

Importing this costs a few milliseconds: numpy and torch are imported by the calls that need them. `statedict.nn` (modules
without torch) and `statedict.torch` (this engine under PyTorch's names) are imported when they are first named.
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

# What is imported when it is first named: name → room.
_LATER = {
    "nn": "nn",
    "torch": "torch",
    "Checkpoint": "formats",
    "Limits": "formats",
    "KeyMap": "plan",
    "LoadReport": "plan",
    **dict.fromkeys(("CheckpointManager", "any_of", "best", "every", "last"), "training"),
}


if not _typing.TYPE_CHECKING:  # to which any name would be one that is there

    def __getattr__(name: str) -> _typing.Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        room = _import_module(f"{__name__}.{_LATER[name]}")
        return room if name == _LATER[name] else getattr(room, name)


def __dir__() -> list[str]:
    return __all__
