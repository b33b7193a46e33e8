"""The usual tensor, read in one step.

`torch.save` writes the call of `_rebuild_tensor_v2` always in the same thirty opcodes; one at a time they cost 15 µs a
tensor. One regular expression matches all of them (they are prefix codes: what matches is what the machine would
execute), and the same checks give the same leaf for 4 µs. Whatever is not exactly usual, or fails a check, is left to the
machine, which says what is wrong.

The memo slots inside a record hold temporaries that no pickler refers to again. They are filled only if somebody asks
(`unfold`), which is possible because this path is taken only while slots are used in order, each once.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from struct import Struct
from typing import Any

from statedict.errors import FormatError
from statedict.state import PLAIN, DType, Leaf, Opaque, Spec, Storage, Traits, dtype

from ._machine import OFF, Machine
from ._names import storage_dtype
from ._seen import Seen
from ._strided import NOWHERE
from ._values import StorageId, TypedStorage
from ._views import spec_in

_GET, _INT, _PUT = rb"(?:h.|j....)", rb"(?:K.|M..|J....)", rb"r(....)"
_SHAPE = rb"(%b\x85|%b{2}\x86|%b{3}\x87|\(%b{4,6}t)" % (_INT, _INT, _INT, _INT)
_RECORD = re.compile(
    rb"\(\((%b%b)X(.)\0\0\0([0-9]{1,19})%b(%b)(%b)t%bQ" % (_GET, _GET, _PUT, _GET, _INT, _PUT)
    + rb"(%b)(?:%b%b%b%b|\)\))([\x88\x89])(%b)\)R%bt%bR%b" % (_INT, _SHAPE, _PUT, _SHAPE, _PUT, _GET, _PUT, _PUT, _PUT),
    re.DOTALL,
)
_FIVE, _SEVEN = Struct("<5I").pack, Struct("<7I").pack
_TRAITS = {b"\x89": PLAIN, b"\x88": Traits(requires_grad=True)}
_FOUR = Struct("<I").pack
_new = tuple.__new__


def read_records(m: Machine, at: int) -> int:
    """Read the record whose function was just pushed, and the names and records that follow it in the same way.

    Its leaf takes the function's place. Gives where to go on, or `at` where the record is not usual.
    """
    leaf, stop = _read(m, at)
    if leaf is None:
        return at
    m.stack[-1] = leaf
    data, stack, memo, longest = m.data, m.stack, m.memo, m.limits.string_bytes
    token = _token(m, at)
    width = 5 + len(token)
    while token and stop < m.size and data[stop] == _TEXT:
        # A name, its PUT, and the same function again.
        start = stop + 5
        end = start + int.from_bytes(data[stop + 1 : start], "little")
        top = m.top
        if data[end : end + width] != b"r" + _FOUR(top) + token or end - start > longest:
            break
        try:
            name = str(data[start:end], "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            break
        m.top = top + 1
        leaf, after = _read(m, end + width)
        if leaf is None:
            m.top = top
            break
        name = memo[top] = "cpu" if name == "cpu" else name
        stack += (name, leaf)
        stop = after
    return stop


_TEXT = b"X"[0]


def _token(m: Machine, at: int) -> bytes:
    """The GET of the function that lies before `at`; empty where it was another opcode."""
    for token in (m.data[at - 2 : at], m.data[at - 5 : at]):
        if token[:1] == (b"h" if len(token) == 2 else b"j") and _slot(m, token) is m.rebuild:
            return token
    return b""


def _read(m: Machine, at: int) -> tuple[Leaf | None, int]:
    """The leaf of the record at `at`, its slots set, and the offset after it; None where it is not usual."""
    found = _RECORD.match(m.data, at, m.size)
    if found is None:
        return None, at
    kind, length, key, put1, place, numel, put2, offset, size, put3, stride, put4, flag, hooks, put5, put6, put7 = (
        found.groups()
    )
    seen, top = m.seen, m.top
    if size is None:
        usual = put1 + put2 + put5 + put6 + put7 == _FIVE(top, top + 1, top + 2, top + 3, top + 4)
        last = top + 4
    else:
        puts = put1 + put2 + put3 + put4 + put5 + put6 + put7
        usual = puts == _SEVEN(top, top + 1, top + 2, top + 3, top + 4, top + 5, top + 6)
        last = top + 6
    dtype = seen.kinds.get(kind) or _storage_kind(m, kind)
    location = seen.locations.get(place) or _location(m, place)
    if not (usual and dtype and location and length[0] == len(key) and (hooks in seen.hooks or _are_hooks(m, hooks))):
        return None, at
    shape = (kind, offset, size, stride)
    spec, needed = seen.shapes.get(shape) or _shape(m, dtype, shape)
    name, count = key.decode(), seen.numbers.get(numel) or _number(m, numel)
    if count < 0:
        return None, at
    try:
        typed = m.storage(_new(StorageId, (dtype, name, location, count, None)))
    except FormatError:
        return None, at
    if type(typed) is not TypedStorage or needed > typed.nbytes or typed.dtype is not dtype:
        return None, at
    leaf = m.memo[last] = Leaf(spec, typed.storage, _TRAITS[flag])
    m.memo[top] = name
    m.top = last + 1
    seen.firsts.append(top)
    seen.places.append(at)
    return leaf, found.end()


# what the tokens mean


def _slot(m: Machine, token: bytes) -> Any:
    return m.memo.get(token[1] if token[:1] == b"h" else int.from_bytes(token[1:], "little"))


def _storage_kind(m: Machine, tokens: bytes) -> DType | None:
    """`"storage"` and a storage type, as two GETs."""
    split = 2 if tokens[:1] == b"h" else 5
    kind = _slot(m, tokens[split:])
    if _slot(m, tokens[:split]) != "storage" or type(kind) is not Opaque or kind.args is not None:
        return None
    try:
        dtype = storage_dtype(kind.module, kind.name)
    except KeyError:
        return None
    if dtype is not None:
        m.seen.kinds[tokens] = dtype
    return dtype


def _location(m: Machine, token: bytes) -> str | None:
    found = _slot(m, token)
    if type(found) is not str or not found:
        return None
    m.seen.locations[token] = found
    return found


def _are_hooks(m: Machine, token: bytes) -> bool:
    found = _slot(m, token)
    if type(found) is not Opaque or found.args is not None or found.path != "collections.OrderedDict":
        return False
    m.seen.hooks.add(token)
    return True


_NONE = Spec(dtype("uint8"), (), ()), 1 << 65


def _shape(m: Machine, of: DType, key: tuple[bytes, bytes, bytes | None, bytes | None]) -> tuple[Spec, int]:
    """The Spec, and the bytes of storage that it needs; more than any storage has where the numbers are no spec."""
    _, offset, size, stride = key
    everything = TypedStorage(_ENDLESS, None, _ENDLESS.nbytes)
    try:
        spec = spec_in(everything, of, _integer(offset), _integers(size), _integers(stride), m.limits)
    except FormatError:
        return _NONE
    found = m.seen.shapes[key] = spec, spec.reach * of.itemsize
    return found


_ENDLESS = Storage(NOWHERE.source, ("endless",), 1 << 64)


def _number(m: Machine, token: bytes) -> int:
    found = m.seen.numbers[token] = _integer(token)
    return found


def _integer(token: bytes) -> int:
    return int.from_bytes(token[1:], "little", signed=token[:1] == b"J")


def _integers(tokens: bytes | None) -> tuple[int, ...]:
    found = []
    at = 1 if tokens and tokens[:1] == b"(" else 0
    while tokens and tokens[at : at + 1] in _WIDTHS:
        stop = at + _WIDTHS[tokens[at : at + 1]]
        found.append(_integer(tokens[at:stop]))
        at = stop
    return tuple(found)


_WIDTHS = {b"K": 2, b"M": 3, b"J": 5}


# the slots inside a record


def unfold(m: Machine, index: int) -> bool:
    """Fill the slots of the record that slot `index` belongs to, if there is one."""
    place = bisect_right(m.seen.firsts, index) - 1
    if place < 0:
        return False
    first = m.seen.firsts[place]
    values = _slots(m, m.seen.places[place])
    for slot, value in enumerate(values, first):
        m.memo.setdefault(slot, value)
    return index < first + len(values)


def unfold_all(m: Machine) -> None:
    """Fill the slots of all records, and leave the rest of the pickle to the machine."""
    if m.seen.firsts:
        for first in m.seen.firsts:
            unfold(m, first)
        m.seen = Seen()
    m.rebuild, m.top = OFF, -1


def _slots(m: Machine, at: int) -> list[Any]:
    """What the machine would have put into a record's slots: key, storage id, size, stride, hooks, arguments, leaf."""
    found = _RECORD.match(m.data, at, m.size)
    assert found is not None
    kind, _, key, _, place, numel, _, offset, size, _, stride, _, flag, *_ = found.groups()
    split = 2 if kind[:1] == b"h" else 5
    dtype, location, name = m.seen.kinds[kind], m.seen.locations[place], key.decode()
    pid = (_slot(m, kind[:split]), _slot(m, kind[split:]), name, location, _integer(numel))
    typed = m.storage(StorageId(dtype, name, location, _integer(numel)))
    sizes, strides = _integers(size), _integers(stride)
    hooks: OrderedDict[Any, Any] = OrderedDict()
    args = (typed, _integer(offset), sizes, strides, flag == b"\x88", hooks)
    leaf = Leaf(m.seen.shapes[kind, offset, size, stride][0], typed.storage, _TRAITS[flag])
    return [name, pid, *([] if size is None else [sizes, strides]), hooks, args, leaf]
