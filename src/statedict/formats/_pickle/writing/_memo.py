"""The state of a pickle being written: the bytes so far and the memo.

As in CPython's pickler, a value is memoised by identity, so code that memoises a temporary value keeps it alive here.
Globals are memoised by name: a live class and an opaque reference to it are the same global.
"""

from __future__ import annotations

from _compat_pickle import REVERSE_IMPORT_MAPPING, REVERSE_NAME_MAPPING
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from struct import Struct, pack
from typing import Any, NamedTuple

from statedict.errors import SaveError
from statedict.state import ArrayLibrary, DType, Leaf, Table, library_of

from .._values import Placement


def _no_tail(slot: int) -> bytes:
    raise AssertionError("the tail of a record is only known after the first one was written")


_WORD = Struct("<BI").pack
# Smaller integers, as keys, have distinct hashes (except -1 and -2).
SMALL = 1 << 60
# A pickle of names and tensors up to this size is within every limit.
UNCHECKED = 32 << 20
# Bytes of opcodes. If there are more, the whole pickle is read: writing them again would take too long.
WRITTEN_TWICE = 64 << 10
# The longest form of an integer that every reader accepts.
LONG = 257
_PUT, _TEXT, _GET = b"rXj"
# NumPy's codes of the types of numbers that are the same on all systems.
NUMBERS = "?bBhHiIlLqQefdFD"


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


@dataclass(slots=True, eq=False)
class PickleWriter:
    """The state of one `emit`.

    Attributes:
        unusual: whether something was written that readers limit: a key that is not text, a large integer, deep nesting.
        doubtful: the values that are written by calls, which a reader may refuse or not make.
        doubtful_bytes: the bytes of their opcodes.
        in_doubt: whether such a value is being written.
        doubtful_slots: the first memo slot that one may have.
        ordered: how many OrderedDicts were written.
        count: the next memo slot.
        memo, named: the slots of values by identity, and of globals by name.
        alive: values whose identities are in the memo.
        storages: by storage key, the slot of the key's text and the element type. A key is written as one object, for
            each equal text.
        prefixes, cpu, tail, shapes: constant parts of the records of tensors.
    """

    store: Callable[[Leaf], Placement]
    store_all: Callable[[Table], int | None] | None
    substitute: Callable[[Any], Any]
    unusual: bool = False
    doubtful: list[Any] = field(default_factory=list)
    doubtful_bytes: int = 0
    in_doubt: bool = False
    doubtful_slots: int = 1 << 62
    ordered: int = 0
    out: bytearray = field(default_factory=bytearray)
    count: int = 0
    memo: dict[int, int] = field(default_factory=dict)
    named: dict[Hashable, int] = field(default_factory=dict)
    alive: list[Any] = field(default_factory=list)
    storages: dict[str, tuple[int, DType]] = field(default_factory=dict)
    kinds: dict[type, ArrayLibrary | None] = field(default_factory=dict)
    prefixes: dict[Any, bytes] = field(default_factory=dict)
    cpu: bytes = b""
    flag_and_hooks: bytes = b""
    tail: Callable[[int], bytes] = _no_tail
    shapes: dict[Any, tuple[bytes, bytes]] = field(default_factory=dict)
    together: list[Together] = field(default_factory=list)

    def library(self, value: Any) -> ArrayLibrary | None:
        """Return the array library of a value that is to be written as a tensor, judged by its type."""
        kind = type(value)
        if kind not in self.kinds:
            library = library_of(value)
            is_value = library is not None and library.name == "numpy"
            self.kinds[kind] = None if is_value else library
        return self.kinds[kind]

    def doubt(self, value: Any) -> None:
        """Note a value that is written by calls, unless it is inside such a value."""
        if not self.in_doubt:
            self.doubtful_slots = min(self.doubtful_slots, self.count)
            if not _is_array_of_numbers(value):
                self.doubtful.append(value)

    def to_read_back(self) -> list[Any] | None:
        """Return the values that a reader might refuse. The others are names, tensors and small values. None: the
        pickle as a whole might exceed a limit, or it would take long to write these values again.
        """
        if self.unusual or len(self.out) > UNCHECKED or self.doubtful_bytes > WRITTEN_TWICE:
            return None
        return self.doubtful

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
        if slot >= self.doubtful_slots:
            # A class or function that is only called inside that value may be a value itself here.
            self.doubt(value)
        return True

    def atom(self, value: Any) -> bool:
        """Write a number, None, a string, or a value that was written before; return False for any other."""
        write = ATOMS.get(type(value))
        if write is None:
            return self.again(value)
        write(self, value)
        return True

    def others(self, values: Iterable[Any]) -> Iterator[Any]:
        """Write the values that are atoms; yield the others when it is their turn."""
        for value in values:
            if not self.atom(value):
                yield value

    def text(self, value: str) -> None:
        """Write a string: a GET if this very object was written before."""
        slot = self.memo.get(id(value))
        if slot is not None:
            self.out += get(slot)
        else:
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
        written = integer(value)
        self.unusual |= len(written) > LONG
        self.out += written

    def flag(self, value: bool) -> None:
        self.out.extend(b"\x88" if value else b"\x89")


def _is_array_of_numbers(value: Any) -> bool:
    """Return whether it is a NumPy array that every reader makes again."""
    kind = type(value)
    if kind.__name__ != "ndarray" or kind.__module__ != "numpy" or not value.size:
        return False
    return bool(value.dtype.isbuiltin == 1 and value.dtype.char in NUMBERS)


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


# Values that do not contain others. Only strings have a memo slot.
ATOMS: dict[type, Callable[[PickleWriter, Any], object]] = {
    type(None): lambda w, value: w.out.extend(b"N"),
    bool: PickleWriter.flag,
    int: PickleWriter.number,
    float: lambda w, value: w.out.extend(b"G" + pack(">d", value)),
    str: PickleWriter.text,
}
