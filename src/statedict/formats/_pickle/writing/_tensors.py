"""Write tensors as in torch's pickles: a rebuild function, the persistent id of a storage, sizes and strides.

An ordinary record takes thirteen steps with callbacks in CPython's pickler. Here, once its constants are in the memo,
it is a few constant strings with slots and sizes inserted; `_entries` writes many at once."""

from __future__ import annotations

from struct import Struct

from statedict.errors import SaveError
from statedict.state import DTYPES, PLAIN, DType, Leaf, Spec

from .._names import STORAGE_NAME
from .._values import Placement, TypedStorage
from ._memo import PickleWriter, get, integer, tuple_of

# The type of an untyped storage, in PyTorch's own check too.
_BYTE = DTYPES["uint8"]


def storage(w: PickleWriter, dtype: DType | None, place: Placement) -> None:
    """Write `("storage", type, key, location, numel)` as a persistent id, which does not get a memo slot."""
    w.out.extend(b"(")
    w.text("storage")
    if dtype is None:
        w.reference("torch.storage", "UntypedStorage")
    else:
        w.reference("torch", STORAGE_NAME[dtype])
    known = w.storage(place.key)
    if known is None:
        w.storages[place.key] = w.fresh_text(place.key), dtype or _BYTE
    else:
        one_dtype(known[1], dtype or _BYTE)
        w.out += get(known[0])
    if place.location == "cpu":
        w.text("cpu")
    else:
        w.fresh_text(place.location)  # PyTorch creates a new string for every device tag but this one
    w.out.extend(integer(place.nbytes // (dtype.itemsize if dtype else 1)) + b"t")
    w.put()
    w.out.extend(b"Q")


def one_dtype(known: DType, dtype: DType) -> None:
    """Raise SaveError if a storage would be written with two element types."""
    if known is not dtype:
        raise SaveError(
            f"two tensors share memory with different dtypes, {known} and {dtype}, "
            "which a PyTorch file cannot store: clone one of them"
        )


def bare_storage(w: PickleWriter, value: TypedStorage) -> None:
    """Write a storage that is itself a value."""
    dtype = value.dtype if value.dtype in STORAGE_NAME else None
    storage(w, dtype, w.store(value.leaf()))


def strided(w: PickleWriter, leaf: Leaf, requires_grad: bool) -> int:
    """Write a strided tensor without attributes or subclass; return its slot."""
    place = w.store(leaf)
    dtype = place.spec.dtype
    plain = not (requires_grad or leaf.traits.conj or leaf.traits.neg)
    if plain and dtype in w.prefixes:
        return _usual(w, place)
    w.reference("torch._utils", strided_function(dtype))
    strided_arguments(w, leaf, place, requires_grad)
    if dtype in STORAGE_NAME and _CPU in w.memo:
        _prepare(w, dtype)
    return reduce(w)


def hooks(w: PickleWriter) -> None:
    """Write an empty OrderedDict instead of backward hooks."""
    w.reference("collections", "OrderedDict")
    w.out.extend(b")R")
    w.put()


def strided_function(dtype: DType) -> str:
    return "_rebuild_tensor_v2" if dtype in STORAGE_NAME else "_rebuild_tensor_v3"


def strided_arguments(w: PickleWriter, leaf: Leaf, place: Placement, requires_grad: bool) -> None:
    """Write `(storage, offset, size, stride, requires_grad, OrderedDict())`, for v3 with the dtype."""
    spec, traits = place.spec, leaf.traits
    old = spec.dtype in STORAGE_NAME
    w.out.extend(b"(")
    storage(w, spec.dtype if old else None, place)
    w.out.extend(integer(spec.offset))
    w.integers(spec.shape)
    w.integers(spec.strides)
    w.flag(requires_grad)
    hooks(w)
    if not old:
        w.reference("torch", spec.dtype.name)
    if traits.conj or traits.neg:
        _metadata(w, [name for name, on in (("conj", traits.conj), ("neg", traits.neg)) if on])
    tuple_end(w, b"t")


def tuple_end(w: PickleWriter, opcode: bytes) -> None:
    """Write the opcode that makes a tuple of the values just written; nothing else refers to it."""
    w.out += opcode
    w.put()


def reduce(w: PickleWriter) -> int:
    """Write the call of the function just written; return the slot of its result."""
    w.out += b"R"
    return w.put()


def _metadata(w: PickleWriter, names: list[str]) -> None:
    w.out.extend(b"}")
    w.put()
    w.out.extend(b"(" if len(names) > 1 else b"")
    for name in names:
        w.fresh_text(name)
        w.out.extend(b"\x88")
    w.out.extend(b"u" if len(names) > 1 else b"s")


# further records, from their constant parts


def _prepare(w: PickleWriter, dtype: DType) -> None:
    """Keep the constant parts of records of this dtype: everything that they refer to is in the memo now."""
    function, kind = w.named["torch._utils", "_rebuild_tensor_v2"], w.named["torch", STORAGE_NAME[dtype]]
    if not w.prefixes:
        flag_and_hooks = b"\x89" + get(w.named["collections", "OrderedDict"]) + b")Rr"
        together = Struct(f"<{len(flag_and_hooks)}sI2sI2sI").pack
        w.tail = lambda slot: together(flag_and_hooks, slot, b"tr", slot + 1, b"Rr", slot + 2)
        w.flag_and_hooks = flag_and_hooks[:-1]
        w.cpu = get(w.memo[_CPU])
    w.prefixes[dtype] = get(function) + b"((" + get(w.memo[id("storage")]) + get(kind)


# Distance from the last slot to the slots of a record's tail, first to last.
TAIL_SLOTS = (12, 6, 0)
# The literals in PyTorch's code and in ours are the same interned objects.
_CPU = id("cpu")
_WORD, _MIDDLE = Struct("<BI").pack, Struct("<2sI").pack
_TEXT, _PUT = b"Xr"
# Memo slots that are written in one byte, and the opcodes that set the first ones.
SHORT = 256
_PUTS = [b"q%c" % slot for slot in range(SHORT)] + [_WORD(_PUT, slot) for slot in range(SHORT, SHORT + 8)]


def entry(w: PickleWriter, name: str, value: object, leaf: Leaf) -> bool:
    """Write a name and a new ordinary tensor; if it is not that, write nothing and return False.

    Written without further calls, because it runs once per tensor.
    """
    memo, traits = w.memo, leaf.traits
    if leaf.spec.dtype not in w.prefixes or (traits is not PLAIN and traits != PLAIN) or id(value) in memo:
        return False
    place = w.store(leaf)
    if w.together and w.slot_together(place.key, value) is not None:
        return False
    known = memo.get(id(name))
    if known is None:
        out, slot, raw = w.out, w.count, name.encode("utf-8", "surrogatepass")
        out += _WORD(_TEXT, len(raw))
        out += raw
        out += _PUTS[slot] if slot < SHORT else _WORD(_PUT, slot)
        memo[id(name)] = slot
        w.count = slot + 1
    else:
        w.out += get(known)
    memo[id(value)] = _usual(w, place)
    w.alive += (name, value)
    return True


def _usual(w: PickleWriter, place: Placement) -> int:
    """Write the record of an ordinary strided tensor from prepared parts."""
    key, location, nbytes, spec = place
    out, slot, dtype = w.out, w.count, spec.dtype
    if slot < SHORT or not spec.shape:
        return _varying(w, place)
    out += w.prefixes[dtype]
    known = w.storage(key)
    if known is None:
        raw = key.encode()
        out += _WORD(_TEXT, len(raw))
        out += raw
        out += _WORD(_PUT, slot)
        w.storages[key] = slot, dtype
        slot += 1
    else:
        one_dtype(known[1], dtype)
        out += get(known[0])
    if location == "cpu":
        out += w.cpu
    else:
        w.count = slot
        slot = w.fresh_text(location) + 1
    sizes, strides = w.shapes.get(spec) or sizes_of(w, spec)
    out += integer(nbytes // dtype.itemsize)
    out += _MIDDLE(b"tr", slot)
    out += sizes
    out += _WORD(_PUT, slot + 1)
    out += strides
    out += _WORD(_PUT, slot + 2)
    out += w.tail(slot + 3)
    w.count = slot + 6
    return slot + 5


def _varying(w: PickleWriter, place: Placement) -> int:
    """Write such a record where memo slots take one byte, or for a tensor without dimensions, whose sizes have no slot."""
    key, location, nbytes, spec = place
    first, dtype = w.count, spec.dtype
    puts = _PUTS[first : first + 8] if first < SHORT else [_WORD(_PUT, slot) for slot in range(first, first + 8)]
    put = iter(puts).__next__
    known = w.storage(key)
    if known is None:
        w.storages[key] = first, dtype
        named = _text(key) + put()
    else:
        one_dtype(known[1], dtype)
        named = get(known[0])
    device = w.cpu if location == "cpu" else _text(location) + put()
    sizes, strides = w.shapes.get(spec) or sizes_of(w, spec)
    pieces = [w.prefixes[dtype], named, device, integer(nbytes // dtype.itemsize), b"t", put(), sizes]
    pieces += [put(), strides, put()] if spec.shape else [strides]
    pieces += [w.flag_and_hooks, put(), b"t", put(), b"R"]
    last = put()
    w.out += b"".join([*pieces, last])
    w.count = first + puts.index(last) + 1
    return w.count - 1


def _text(value: str) -> bytes:
    raw = value.encode()
    return _WORD(_TEXT, len(raw)) + raw


def text_head(length: int) -> bytes:
    """Return the opcode and length that begin a text of that many bytes."""
    return _WORD(_TEXT, length)


def sizes_of(w: PickleWriter, spec: Spec) -> tuple[bytes, bytes]:
    """Return the opcodes of offset and sizes, and of the strides, each without its PUT."""
    _, shape, strides, offset = spec
    found = w.shapes[spec] = (b"Q" + integer(offset) + tuple_of(shape), tuple_of(strides))
    return found
