"""The bytes of a record (the usual call of `_rebuild_tensor_v2`), and what the reader keeps from one record to the next."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from functools import cache
from sys import byteorder
from typing import Any

from statedict.state import PLAIN, DType, Spec, Traits

GET, INT = rb"(?:h.|j....)", rb"(?:K.|M..|J....)"
SHAPE = rb"(%b\x85|%b{2}\x86|%b{3}\x87|\(%b{4,6}t)" % (INT, INT, INT, INT)
TRAITS = {b"\x89": PLAIN, b"\x88": Traits(requires_grad=True)}
# The first slots are set by BINPUT, whose argument has one byte; all others by LONG_BINPUT, with four.
EARLY = 256


class Seen:
    """A cache of the reader of records, by the bytes that were read. Valid as long as no slot of the memo is set again.

    Attributes:
        kinds: the dtype for two GETs, of `"storage"` and of a storage type.
        locations: the device tag for a GET.
        hooks: GETs of OrderedDict.
        numbers: the number for the opcodes that push it.
        shapes: for the tokens of kind, offset, size and stride, a Spec and the bytes of storage that it needs.
        scan: the records that were found ahead (a `_record_runs.Scan`), or None.
        width: the number of bytes of the next scan.
        firsts: for each record read, in order, the first slot that it sets.
        places: its offset: of its name, or, if it has none (it is the first of a run), the one after its function's GET.
        names: its name, or None.
    """

    __slots__ = ("firsts", "hooks", "kinds", "locations", "names", "numbers", "places", "scan", "shapes", "width")

    def __init__(self) -> None:
        self.kinds: dict[bytes, DType] = {}
        self.locations: dict[bytes, str] = {}
        self.hooks: set[bytes] = set()
        self.numbers: dict[bytes, int] = {}
        self.shapes: dict[Any, tuple[Spec, int]] = {}
        self.scan: Any = None
        self.width = 0
        self.firsts: list[int] = []
        self.places: list[int] = []
        self.names: list[str | None] = []

    def add(self, firsts: Iterable[int], places: Iterable[int], names: Iterable[str | None]) -> None:
        """Add records."""
        self.firsts += firsts
        self.places += places
        self.names += names


@cache
def record(early: bool) -> re.Pattern[bytes]:
    """Return the pattern of one record. Compiling it takes 3 ms, so it is done at the first use."""
    put = rb"q(.)" if early else rb"r(....)"
    start = rb"\(\((%b%b)X(.)\0\0\0([0-9]{1,19})%b(%b)(%b)t%bQ" % (GET, GET, put, GET, INT, put)
    sizes = rb"(%b)(?:%b%b%b%b|\)\))" % (INT, SHAPE, put, SHAPE, put)
    return re.compile(start + sizes + rb"([\x88\x89])(%b)\)R%bt%bR%b" % (GET, put, put, put), re.DOTALL)


def puts(early: bool, first: int, nbytes: int) -> bytes:
    """Return slot numbers from `first` on as arguments of PUT opcodes, `nbytes` bytes in all; fewer if one is too large."""
    if early:
        return bytes(range(first, min(first + nbytes, EARLY)))
    packed = array("I", range(first, first + nbytes // 4))
    if byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def integer(token: bytes) -> int:
    """Return the number that an opcode of INT pushes."""
    return int.from_bytes(token[1:], "little", signed=token[:1] == b"J")


def integers(tokens: bytes) -> tuple[int, ...]:
    """Return the numbers of a SHAPE."""
    found = []
    at = 1 if tokens[:1] == b"(" else 0
    while tokens[at : at + 1] in _WIDTHS:
        stop = at + _WIDTHS[tokens[at : at + 1]]
        found.append(integer(tokens[at:stop]))
        at = stop
    return tuple(found)


_WIDTHS = {b"K": 2, b"M": 3, b"J": 5}
