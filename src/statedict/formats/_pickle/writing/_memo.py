"""The state of a pickle being written: the bytes so far and the memo.

As in CPython's pickler, a value is memoised by identity, so code that memoises a temporary value keeps it alive here.
Globals are memoised by name: a live class and an opaque reference to it are the same global.
"""

from __future__ import annotations

from _compat_pickle import REVERSE_IMPORT_MAPPING, REVERSE_NAME_MAPPING
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from struct import Struct, pack
from typing import Any, NamedTuple

from statedict.errors import SaveError
from statedict.state import DTYPES, ArrayLibrary, DType, Leaf, Table, library_of

from .._names import STORAGE_NAME
from .._values import Placement


def _no_tail(slot: int) -> bytes:
    raise AssertionError("the tail of a record is only known after the first one was written")


_WORD = Struct("<BI").pack
# Smaller integers, as keys, have distinct hashes (except -1 and -2).
SMALL = 1 << 60
# A pickle of names and tensors up to this size is within every limit.
UNCHECKED = 32 << 20
# The globals in the record of a strided tensor and in a state dict.
PLAIN_NAMES = frozenset(
    {("torch._utils", name) for name in ("_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")}
    | {("torch", name) for name in (*STORAGE_NAME.values(), *DTYPES)}
    | {("collections", "OrderedDict"), ("torch.storage", "UntypedStorage")}
)
_PUT, _TEXT, _GET = b"rXj"


def get(slot: int) -> bytes:
    """Return the opcode that reads a memo slot."""
    return b"h%c" % slot if slot < 256 else _WORD(_GET, slot)


class Together(NamedTuple):
    """Tensors whose records were written together: they enter the memo only if one of them occurs again.

    Attributes:
        first: the storage key of the first tensor; the others have consecutive keys.
        values: the tensors.
        keys, slots: the memo slots of the keys' texts, and of the tensors.
    """

    first: int
    values: Sequence[Any]
    table: Table
    keys: Sequence[int]
    slots: Sequence[int]


class PickleWriter:
    """The state of one `emit`."""

    __slots__ = (
        "alive",
        "arrays",
        "count",
        "cpu",
        "kinds",
        "memo",
        "named",
        "ordered",
        "out",
        "prefixes",
        "shapes",
        "storages",
        "store",
        "store_all",
        "substitute",
        "tail",
        "together",
        "unusual",
    )

    def __init__(
        self,
        store: Callable[[Leaf], Placement],
        store_all: Callable[[Table], int | None] | None,
        *,
        arrays: bool,
        substitute: Callable[[Any], Any],
    ) -> None:
        self.store = store
        self.store_all = store_all
        self.arrays = arrays
        self.substitute = substitute
        # Whether something was written that readers limit: a key that is not text, a large integer, deep nesting.
        self.unusual = False
        self.ordered = 0
        self.out = bytearray()
        self.count = 0
        self.memo: dict[int, int] = {}
        self.named: dict[Hashable, int] = {}
        self.alive: list[Any] = []
        # By storage key: the slot of the key's text, and the element type. A key is written as one object, for each
        # equal text.
        self.storages: dict[str, tuple[int, DType]] = {}
        self.kinds: dict[type, ArrayLibrary | None] = {}
        self.prefixes: dict[Any, bytes] = {}
        self.cpu = b""
        self.tail: Callable[[int], bytes] = _no_tail
        self.shapes: dict[Any, tuple[bytes, bytes]] = {}
        self.together: list[Together] = []

    def library(self, value: Any) -> ArrayLibrary | None:
        """Return the array library of a value that is to be written as a tensor, judged by its type."""
        kind = type(value)
        if kind not in self.kinds:
            library = library_of(value)
            is_value = library is not None and library.name == "numpy" and not self.arrays
            self.kinds[kind] = None if is_value else library
        return self.kinds[kind]

    def is_plain(self) -> bool:
        """Return whether everything written is names, tensors and small values, which a reader cannot refuse."""
        return not self.unusual and len(self.out) <= UNCHECKED and self.named.keys() <= PLAIN_NAMES

    def storage(self, key: str) -> tuple[int, DType] | None:
        """Return the slot of a storage key and its element type, if it was written before."""
        found = self._row(key) if self.together and key not in self.storages else None
        if found is None:
            return self.storages.get(key)
        together, row = found
        return together.keys[row], together.table.kinds[together.table.which[row]].spec.dtype

    def slot_together(self, key: str, value: Any) -> int | None:
        """Return the slot of a tensor whose storage has that key, if this very object was written together with others."""
        found = self._row(key)
        return None if found is None or found[0].values[found[1]] is not value else found[0].slots[found[1]]

    def _row(self, key: str) -> tuple[Together, int] | None:
        number = int(key)
        at = bisect_right(self.together, number, key=attrgetter("first")) - 1
        if at < 0 or number - self.together[at].first >= len(self.together[at].values):
            return None
        return self.together[at], number - self.together[at].first

    def put(self) -> int:
        """Write a PUT into the next memo slot; return the slot."""
        slot = self.count
        self.count = slot + 1
        self.out += b"q%c" % slot if slot < 256 else _WORD(_PUT, slot)
        return slot

    def memoize(self, value: Any) -> None:
        """Put the value that was just written into the memo."""
        self.memo[id(value)] = self.put()
        self.alive.append(value)

    def again(self, value: Any) -> bool:
        """Write a GET if the value was written before; return whether it was."""
        slot = self.memo.get(id(value))
        if slot is None:
            return False
        self.out += get(slot)
        return True

    def text(self, value: str) -> None:
        """Write a string: a GET if this very object was written before."""
        if not self.again(value):
            self.memo[id(value)] = self.fresh_text(value)
            self.alive.append(value)

    def fresh_text(self, value: str) -> int:
        """Write a string object that was not written before, even if an equal one was; return its slot."""
        raw = value.encode("utf-8", "surrogatepass")
        if len(raw) >> 32:
            raise SaveError("a string of 4 GiB or more cannot be pickled in protocol 2")
        out = self.out
        out += _WORD(_TEXT, len(raw))
        out += raw
        return self.put()

    def reference(self, module: str, name: str) -> int:
        """Write a global, by its Python 2 name if it has one, as protocol 2 requires; use getattr for a dotted name.
        Return its slot.
        """
        if "." not in name:
            named = REVERSE_NAME_MAPPING.get((module, name))
            module, name = named or (REVERSE_IMPORT_MAPPING.get(module, module), name)
        slot = self.named.get((module, name))
        if slot is not None:
            self.out += get(slot)
            return slot
        if "\n" in module + name:
            raise SaveError(f"{module}.{name} cannot be pickled: the name contains a line break")
        if "." in name:
            self._attribute(module, name)
        else:
            self.out.extend(f"c{module}\n{name}\n".encode())
        slot = self.named[module, name] = self.put()
        return slot

    def _attribute(self, module: str, name: str) -> None:
        owner, _, last = name.rpartition(".")
        self.reference("builtins", "getattr")
        self.reference(module, owner)
        self.text(last)
        self.out.extend(b"\x86")
        self.put()
        self.out.extend(b"R")

    def integers(self, values: Iterable[int]) -> None:
        """Write a tuple of integers that is not shared."""
        written = tuple_of(values)
        self.out += written
        if written != b")":
            self.put()

    def number(self, value: int) -> None:
        self.unusual |= not -SMALL < value < SMALL
        self.out += integer(value)

    def flag(self, value: bool) -> None:
        self.out.extend(b"\x88" if value else b"\x89")


def tuple_of(values: Iterable[int]) -> bytes:
    """Return the opcodes that build a tuple of integers, without its PUT."""
    parts = [integer(value) for value in values]
    if not parts:
        return b")"
    if len(parts) <= 3:
        return b"".join(parts) + (b"\x85", b"\x86", b"\x87")[len(parts) - 1]
    return b"(" + b"".join(parts) + b"t"


def integer(value: int) -> bytes:
    """Return an integer in the shortest form of protocol 2."""
    if 0 <= value < 1 << 16:
        return b"K%c" % value if value < 256 else b"M" + value.to_bytes(2, "little")
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + pack("<i", value)
    raw = value.to_bytes((value.bit_length() >> 3) + 1, "little", signed=True)
    if value < 0 and raw[-1] == 0xFF and raw[-2] & 0x80:
        raw = raw[:-1]
    return (b"\x8a%c" % len(raw) if len(raw) < 256 else b"\x8b" + pack("<i", len(raw))) + raw
