"""Layers that may write into their input."""

from __future__ import annotations

from .._module import Module


class InPlace(Module):
    """A nonlinearity whose only setting is whether it writes into its input."""

    inplace: bool

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


def also(inplace: bool) -> str:
    """What the `repr` of a layer says of it behind the other settings."""
    return ", inplace=True" if inplace else ""
