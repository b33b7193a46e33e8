"""Which classes a reader makes instances of: those of our own table, and those that the program has allowed to PyTorch."""

from __future__ import annotations

import sys
from importlib import import_module

from statedict.state import OF_TORCH, Opaque, maker_of

from ._pickle import Import


def is_made(value: Opaque) -> bool:
    """Whether a reader makes a value out of this description."""
    if "torch" in sys.modules:
        return import_module("statedict.torch").maker(value) is not None
    return maker_of(value) is not None or (value.module, value.name) in OF_TORCH


def is_allowed(named: Import) -> bool:
    """Whether the program has allowed what a pickle imports."""
    return "torch" in sys.modules and is_made(Opaque(named.module, named.name))
