"""What is known while a pickle is written: the bytes so far and the memo.

As in CPython's pickler a value is memoised by identity, so who makes a temporary value and memoises it keeps it alive here.
Globals are memoised by name: a live class and an opaque reference to it are the same global.
"""

from __future__ import annotations

from _compat_pickle import REVERSE_IMPORT_MAPPING, REVERSE_NAME_MAPPING
from collections.abc import Callable, Hashable, Iterable
from struct import pack
from typing import Any

from statedict.errors import SaveError
from statedict.state import Leaf

from ._values import Placement


class Writer:
    """The state of one `emit`."""

    __slots__ = (
        "alive",
        "arrays",
        "count",
        "dtypes",
        "keys",
        "kinds",
        "memo",
        "named",
        "out",
        "prefixes",
        "shapes",
        "store",
        "tail",
    )

    def __init__(self, store: Callable[[Leaf], Placement], *, arrays: bool) -> None:
        self.store = store
        self.arrays = arrays
        self.out: list[bytes] = []
        self.count = 0
        self.memo: dict[int, bytes] = {}
        self.named: dict[Hashable, bytes] = {}
        self.alive: list[Any] = []
        self.keys: dict[str, str] = {}
        self.kinds: dict[type, Any] = {}
        self.dtypes: dict[str, object] = {}
        self.prefixes: dict[Any, bytes] = {}
        self.tail: Callable[[int], bytes] | None = None
        self.shapes: dict[Any, tuple[bytes, bytes]] = {}

    def put(self) -> bytes:
        """Write a PUT into the next memo slot; the GET that reads it again."""
        slot = self.count
        self.count = slot + 1
        if slot < 256:
            self.out.append(b"q%c" % slot)
            return b"h%c" % slot
        place = slot.to_bytes(4, "little")
        self.out.append(b"r" + place)
        return b"j" + place

    def memoize(self, value: Any) -> None:
        """Put the value that was just written into the memo."""
        self.memo[id(value)] = self.put()
        self.alive.append(value)

    def again(self, value: Any) -> bool:
        """Write a GET if the value has been written before."""
        get = self.memo.get(id(value))
        if get is None:
            return False
        self.out.append(get)
        return True

    def text(self, value: str) -> None:
        """A string: a GET where this very object was written before."""
        if not self.again(value):
            self.memo[id(value)] = self.fresh_text(value)
            self.alive.append(value)

    def fresh_text(self, value: str) -> bytes:
        """A string that was not written before, whatever it is equal to; its GET."""
        raw = value.encode("utf-8", "surrogatepass")
        if len(raw) >> 32:
            raise SaveError("a string of 4 GiB or more cannot be pickled in protocol 2")
        self.out.append(b"X" + len(raw).to_bytes(4, "little") + raw)
        return self.put()

    def reference(self, module: str, name: str) -> bytes:
        """A global, by its Python 2 name where it has one, as protocol 2 wants; with dots, by way of getattr. Its GET."""
        if "." not in name:
            named = REVERSE_NAME_MAPPING.get((module, name))
            module, name = named or (REVERSE_IMPORT_MAPPING.get(module, module), name)
        get = self.named.get((module, name))
        if get is not None:
            self.out.append(get)
            return get
        if "\n" in module + name:
            raise SaveError(f"{module}.{name} cannot be named in a pickle")
        if "." in name:
            self._attribute(module, name)
        else:
            self.out.append(f"c{module}\n{name}\n".encode())
        get = self.named[module, name] = self.put()
        return get

    def _attribute(self, module: str, name: str) -> None:
        owner, _, last = name.rpartition(".")
        self.reference("builtins", "getattr")
        self.reference(module, owner)
        self.text(last)
        self.out.append(b"\x86")
        self.put()
        self.out.append(b"R")

    def integers(self, values: Iterable[int]) -> None:
        """A tuple of integers that nobody else holds."""
        self.out.append(tuple_of(values))
        if self.out[-1] != b")":
            self.put()

    def flag(self, value: bool) -> None:
        self.out.append(b"\x88" if value else b"\x89")


def tuple_of(values: Iterable[int]) -> bytes:
    """The opcodes that make a tuple of integers, without its PUT."""
    parts = [integer(value) for value in values]
    if not parts:
        return b")"
    if len(parts) <= 3:
        return b"".join(parts) + (b"\x85", b"\x86", b"\x87")[len(parts) - 1]
    return b"(" + b"".join(parts) + b"t"


def integer(value: int) -> bytes:
    """An integer in the shortest of protocol 2's forms."""
    if 0 <= value < 1 << 16:
        return b"K%c" % value if value < 256 else b"M" + value.to_bytes(2, "little")
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + pack("<i", value)
    raw = value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    if value < 0 and raw[-1] == 0xFF and raw[-2] & 0x80:
        raw = raw[:-1]
    return (b"\x8a%c" % len(raw) if len(raw) < 256 else b"\x8b" + pack("<i", len(raw))) + raw
