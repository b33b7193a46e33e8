"""Which classes a reader makes instances of: those of our own table, and those that the program has allowed to PyTorch."""

from __future__ import annotations

import sys

from statedict.state import OF_TORCH, Opaque, maker

from .._pickle import Import


def is_made(value: Opaque) -> bool:
    """Whether a reader makes a value out of this description, where torch is there."""
    return maker(value) is not None or ("torch" not in sys.modules and (value.module, value.name) in OF_TORCH)


def is_allowed(named: Import) -> bool:
    """Whether the program has allowed what a pickle imports."""
    return "torch" in sys.modules and maker(Opaque(named.module, named.name)) is not None
