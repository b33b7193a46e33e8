"""What the quick path for tensors remembers between one record and the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from statedict.state import DType, Spec


class Seen:
    """What the quick path has looked up: while it is on, no slot of the memo changes.

    Attributes:
        kinds: two GETs, of `"storage"` and a storage type, to the dtype.
        locations: a GET to the device tag.
        hooks: GETs of OrderedDict.
        numbers: opcodes of a number to the number.
        shapes: tokens of kind, offset, size and stride to a Spec and the bytes of storage that it needs.
        patience: how often a stretch of them may still be looked for in vain.
        firsts: of each record read, the first slot that it sets, in order; the columns that follow belong to it.
        places: where it begins: at its name, or where it has none (it is the first of a run) after its function's GET.
        names: its name, or None.
    """

    __slots__ = ("firsts", "hooks", "kinds", "locations", "names", "numbers", "patience", "places", "shapes")

    def __init__(self) -> None:
        self.kinds: dict[bytes, DType] = {}
        self.locations: dict[bytes, str] = {}
        self.hooks: set[bytes] = set()
        self.numbers: dict[bytes, int] = {}
        self.shapes: dict[Any, tuple[Spec, int]] = {}
        self.patience = 8
        self.firsts: list[int] = []
        self.places: list[int] = []
        self.names: list[str | None] = []

    def add(self, firsts: Iterable[int], places: Iterable[int], names: Iterable[str | None]) -> None:
        """Remember records."""
        self.firsts += firsts
        self.places += places
        self.names += names
