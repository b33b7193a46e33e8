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

from ._api import audit, load, load_state_dict, save, snapshot, state_dict
from ._api import open as open  # public, but not in `__all__`
from ._compare import diff, match, merge
from .errors import (
    AfterSaveError,
    BoundsError,
    ChecksumError,
    CollisionError,
    ConflictError,
    DiskFullError,
    FileChangedError,
    FormatError,
    LimitError,
    LoadError,
    LockedError,
    MapError,
    MergeError,
    MissingDependencyError,
    NotAStateError,
    PartError,
    PluginError,
    RankError,
    RemoteError,
    RootError,
    RunDeniedError,
    RunGoneError,
    SaveError,
    StateDictError,
    TruncatedError,
    UnknownFormatError,
    UnknownNameError,
    UnsafeFileError,
)
from .state import StateDict

__version__ = "0.1.0.dev0"

if _typing.TYPE_CHECKING:
    from . import maps as maps
    from . import nn as nn
    from . import torch as torch
    from .formats import Checkpoint, Limits
    from .plan import Diff, Inference, KeyMap, LoadReport
    from .training import CheckpointManager, Resumed, Saved, any_of, at_most, best, every, last, on_preemption, within

# What `from statedict import *` binds. Without `open` and the subpackages: they would hide Python's `open`, PyTorch's
# `nn` and `torch` itself, and fail where PyTorch is not installed.
__all__ = [
    "AfterSaveError", "BoundsError", "Checkpoint", "CheckpointManager", "ChecksumError", "CollisionError",
    "ConflictError", "Diff", "DiskFullError", "FileChangedError", "FormatError", "Inference", "KeyMap", "LimitError",
    "Limits", "LoadError", "LoadReport", "LockedError", "MapError", "MergeError", "MissingDependencyError",
    "NotAStateError", "PartError", "PluginError", "RankError", "RemoteError", "Resumed", "RootError", "RunDeniedError",
    "RunGoneError", "SaveError", "Saved", "StateDict", "StateDictError", "TruncatedError", "UnknownFormatError",
    "UnknownNameError", "UnsafeFileError", "any_of", "at_most", "audit", "best", "diff", "every", "last", "load",
    "load_state_dict", "match", "merge", "on_preemption", "save", "snapshot", "state_dict", "within",
]  # fmt: skip

_SUBPACKAGES = ("maps", "nn", "torch")
# Names imported at their first use, and the subpackage of each.
_LAZY = {
    **{name: name for name in _SUBPACKAGES},
    "Checkpoint": "formats",
    "Limits": "formats",
    **dict.fromkeys(("Diff", "Inference", "KeyMap", "LoadReport"), "plan"),
    **dict.fromkeys(("CheckpointManager", "Resumed", "Saved"), "training"),
    **dict.fromkeys(("any_of", "at_most", "best", "every", "last", "on_preemption", "within"), "training"),
}


if not _typing.TYPE_CHECKING:  # a type checker would accept any name

    def __getattr__(name: str) -> _typing.Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            package = _import_module(f"{__name__}.{_LAZY[name]}")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise MissingDependencyError("torch", needed_for=f"statedict.{name}", extra="torch") from error
        return package if name == _LAZY[name] else getattr(package, name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBPACKAGES, "open"])
