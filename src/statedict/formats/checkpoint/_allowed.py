"""Decide which classes a reader instantiates: those of our own table, and those the program has allowed in PyTorch."""

from __future__ import annotations

import sys

from statedict.state import OF_TORCH, Opaque, maker

from .._pickle import Import


def is_made(value: Opaque) -> bool:
    """Return whether loading turns this description into a real object, if torch is installed."""
    return maker(value) is not None or (sys.modules.get("torch") is None and (value.module, value.name) in OF_TORCH)


def is_allowed(named: Import) -> bool:
    """Return whether the program has allowed this import (`torch.serialization.add_safe_globals`)."""
    return sys.modules.get("torch") is not None and maker(Opaque(named.module, named.name)) is not None
