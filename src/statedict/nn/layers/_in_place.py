"""Layers that may write into their input."""

from __future__ import annotations

from .._module import Module


class InPlace(Module):
    """An activation whose only setting is `inplace`."""

    inplace: bool

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def also(inplace: bool) -> str:
    """Return the text for `repr`, after the other settings."""
    return ", inplace=True" if inplace else ""
