"""What the quick path for tensors remembers between one record and the next."""

from __future__ import annotations

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
        firsts, places: of each record read, its first slot, and the offset after its function's GET.
    """

    __slots__ = ("firsts", "hooks", "kinds", "locations", "numbers", "places", "shapes")

    def __init__(self) -> None:
        self.kinds: dict[bytes, DType] = {}
        self.locations: dict[bytes, str] = {}
        self.hooks: set[bytes] = set()
        self.numbers: dict[bytes, int] = {}
        self.shapes: dict[Any, tuple[Spec, int]] = {}
        self.firsts: list[int] = []
        self.places: list[int] = []
