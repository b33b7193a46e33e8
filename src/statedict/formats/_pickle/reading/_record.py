"""What the usual record of a tensor looks like, and what the tokens in it mean: shared by both quick paths.

A record is the call of `_rebuild_tensor_v2` without its function. The memo slots that it sets hold temporaries.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from functools import cache
from sys import byteorder
from typing import Any

from statedict.errors import FormatError
from statedict.state import PLAIN, DType, Opaque, Spec, Storage, Traits, dtype

from .._names import storage_dtype
from .._values import TypedStorage
from ._machine import Machine
from ._strided import NOWHERE
from ._views import spec_in

GET, INT = rb"(?:h.|j....)", rb"(?:K.|M..|J....)"
SHAPE = rb"(%b\x85|%b{2}\x86|%b{3}\x87|\(%b{4,6}t)" % (INT, INT, INT, INT)
TRAITS = {b"\x89": PLAIN, b"\x88": Traits(requires_grad=True)}
# The first slots are set by BINPUT, with one byte for the number, all others by LONG_BINPUT, with four.
EARLY = 256


@cache
def record(early: bool) -> re.Pattern[bytes]:
    """One record. Made at the first use: compiling it takes 3 ms, which files of other kinds need not wait for."""
    put = rb"q(.)" if early else rb"r(....)"
    start = rb"\(\((%b%b)X(.)\0\0\0([0-9]{1,19})%b(%b)(%b)t%bQ" % (GET, GET, put, GET, INT, put)
    sizes = rb"(%b)(?:%b%b%b%b|\)\))" % (INT, SHAPE, put, SHAPE, put)
    return re.compile(start + sizes + rb"([\x88\x89])(%b)\)R%bt%bR%b" % (GET, put, put, put), re.DOTALL)


def puts(early: bool, first: int, nbytes: int) -> bytes:
    """The numbers of as many slots as fill `nbytes` bytes, beginning with `first`, as the PUTs have them; none that are
    too large for theirs."""
    if early:
        return bytes(range(first, min(first + nbytes, EARLY)))
    return uint32(range(first, first + nbytes // 4))


def uint32(numbers: Iterable[int]) -> bytes:
    """Numbers as opcodes have them: four bytes each, little-endian."""
    packed = array("I", numbers)
    if byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def slot(m: Machine, token: bytes) -> Any:
    return m.memo.get(token[1] if token[:1] == b"h" else int.from_bytes(token[1:], "little"))


def storage_kind(m: Machine, tokens: bytes) -> DType | None:
    """`"storage"` and a storage type, as two GETs."""
    split = 2 if tokens[:1] == b"h" else 5
    kind = slot(m, tokens[split:])
    if slot(m, tokens[:split]) != "storage" or type(kind) is not Opaque or kind.args is not None:
        return None
    try:
        dtype = storage_dtype(kind.module, kind.name)
    except KeyError:
        return None
    if dtype is not None:
        m.seen.kinds[tokens] = dtype
    return dtype


def location_of(m: Machine, token: bytes) -> str | None:
    found = slot(m, token)
    if type(found) is not str or not found:
        return None
    m.seen.locations[token] = found
    return found


def are_hooks(m: Machine, token: bytes) -> bool:
    found = slot(m, token)
    if type(found) is not Opaque or found.args is not None or found.path != "collections.OrderedDict":
        return False
    m.seen.hooks.add(token)
    return True


_NONE = Spec(dtype("uint8"), (), ()), 1 << 65


def shape_of(m: Machine, of: DType, key: tuple[bytes, bytes, bytes, bytes]) -> tuple[Spec, int]:
    """The Spec, and the bytes of storage that it needs; more than any storage has where the numbers are no spec."""
    _, offset, size, stride = key
    everything = TypedStorage(_ENDLESS, None, _ENDLESS.nbytes)
    try:
        spec = spec_in(everything, of, integer(offset), integers(size), integers(stride), m.limits)
    except FormatError:
        return _NONE
    found = m.seen.shapes[key] = spec, spec.reach * of.itemsize
    return found


_ENDLESS = Storage(NOWHERE.source, ("endless",), 1 << 64)


def number_of(m: Machine, token: bytes) -> int:
    found = m.seen.numbers[token] = integer(token)
    return found


def integer(token: bytes) -> int:
    return int.from_bytes(token[1:], "little", signed=token[:1] == b"J")


def integers(tokens: bytes) -> tuple[int, ...]:
    found = []
    at = 1 if tokens[:1] == b"(" else 0
    while tokens[at : at + 1] in _WIDTHS:
        stop = at + _WIDTHS[tokens[at : at + 1]]
        found.append(integer(tokens[at:stop]))
        at = stop
    return tuple(found)


_WIDTHS = {b"K": 2, b"M": 3, b"J": 5}
