"""Tensors as torch's pickles have them: a rebuild function, a storage's persistent id, sizes and strides.

The usual record costs thirteen steps with callbacks in CPython's pickler. Here, once its constants are in the memo, it is a
few constant strings with slots and sizes put between (2 µs a tensor)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct, pack
from typing import Any

from statedict.errors import SaveError
from statedict.state import PLAIN, Compound, DType, Leaf, Spec, contiguous_strides

from ._names import PACKED, STORAGE_NAME
from ._values import Placement, TorchConstant, TypedStorage
from ._writer import Writer, get, integer, tuple_of


def storage(w: Writer, dtype: DType | None, place: Placement) -> None:
    """`("storage", type, key, location, numel)` as a persistent id. It has no slot in the memo."""
    key = w.keys.setdefault(place.key, place.key)
    one_dtype(w, key, dtype)
    w.out.extend(b"(")
    w.text("storage")
    if dtype is None:
        w.reference("torch.storage", "UntypedStorage")
    else:
        w.reference("torch", STORAGE_NAME[dtype])
    w.text(key)
    if place.location == "cpu":
        w.text("cpu")
    else:
        w.fresh_text(place.location)  # PyTorch makes a new string for every device tag but this one.
    w.out.extend(integer(place.nbytes // (dtype.itemsize if dtype else 1)) + b"t")
    w.put()
    w.out.extend(b"Q")


def one_dtype(w: Writer, key: str, dtype: DType | None) -> None:
    if w.dtypes.setdefault(key, dtype) is not dtype:
        raise SaveError(
            f"two tensors show one memory as {w.dtypes[key] or 'bytes'} and as {dtype or 'bytes'}, "
            "which a PyTorch file cannot hold: clone one of them"
        )


def bare_storage(w: Writer, value: TypedStorage) -> None:
    """A storage that is itself a value."""
    dtype = value.dtype if value.dtype in STORAGE_NAME else None
    storage(w, dtype, w.store(value.leaf()))


def tensor(w: Writer, value: Leaf | Compound, requires_grad: bool) -> int:
    """A tensor without what it was beyond its elements; its slot."""
    if isinstance(value, Leaf):
        place = w.store(value)
        plain = not (requires_grad or value.traits.conj or value.traits.neg)
        if plain and place.spec.shape and place.spec.dtype in w.prefixes:
            return _usual(w, place)
        w.reference("torch._utils", strided_function(place.spec.dtype))
        _strided(w, value, place, requires_grad)
        if w.count >= 256 and place.spec.dtype in STORAGE_NAME and _CPU in w.memo:
            _prepare(w, place.spec.dtype)
    else:
        w.reference("torch._utils", _COMPOUNDS[value.layout][0])
        _COMPOUNDS[value.layout][1](w, value, requires_grad)
    w.out.extend(b"R")
    return w.put()


def parts(w: Writer, value: Leaf | Compound, subclass: str) -> None:
    """The function, class and arguments that `_rebuild_from_type_v2` takes."""
    module, _, name = subclass.rpartition(".")
    if isinstance(value, Leaf):
        place = w.store(value)
        w.reference("torch._utils", strided_function(place.spec.dtype))
        w.reference(module, name)
        _strided(w, value, place, value.traits.requires_grad)
    else:
        function, arguments = _COMPOUNDS[value.layout]
        w.reference("torch._utils", function)
        w.reference(module, name)
        arguments(w, value, value.traits.requires_grad)


def hooks(w: Writer) -> None:
    """The empty OrderedDict where backward hooks once were."""
    w.reference("collections", "OrderedDict")
    w.out.extend(b")R")
    w.put()


def strided_function(dtype: DType) -> str:
    return "_rebuild_tensor_v2" if dtype in STORAGE_NAME else "_rebuild_tensor_v3"


def _strided(w: Writer, leaf: Leaf, place: Placement, requires_grad: bool) -> None:
    """`(storage, offset, size, stride, requires_grad, OrderedDict())`, for v3 with the dtype."""
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
    _tuple(w, b"t")


def _tuple(w: Writer, opcode: bytes) -> None:
    w.out.extend(opcode)
    w.put()


def _metadata(w: Writer, names: list[str]) -> None:
    w.out.extend(b"}")
    w.put()
    w.out.extend(b"(" if len(names) > 1 else b"")
    for name in names:
        w.fresh_text(name)
        w.out.extend(b"\x88")
    w.out.extend(b"u" if len(names) > 1 else b"s")


# the same record again, from its parts


def _prepare(w: Writer, dtype: DType) -> None:
    """Keep the constant parts of records of this dtype: all that they refer to is in the memo by now."""
    function, kind = w.named["torch._utils", "_rebuild_tensor_v2"], w.named["torch", STORAGE_NAME[dtype]]
    if not w.prefixes:
        flag_and_hooks = b"\x89" + get(w.named["collections", "OrderedDict"]) + b")Rr"
        together = Struct(f"<{len(flag_and_hooks)}sI2sI2sI").pack
        w.tail = lambda slot: together(flag_and_hooks, slot, b"tr", slot + 1, b"Rr", slot + 2)
        w.cpu = get(w.memo[_CPU])
    w.prefixes[dtype] = get(function) + b"((" + get(w.memo[id("storage")]) + get(kind)


# The literals in PyTorch's code and in ours are the same interned objects.
_CPU = id("cpu")
_WORD, _MIDDLE = Struct("<BI").pack, Struct("<2sI").pack
_TEXT, _PUT = b"Xr"


def entry(w: Writer, name: str, value: object, leaf: Leaf) -> bool:
    """A new name and the usual tensor under it; False, and nothing written, where either is not that.

    Written flat: a call costs 0.1 µs, and this is done for each of 32,000 tensors.
    """
    memo, (dtype, shape, _, _), traits = w.memo, leaf.spec, leaf.traits
    if dtype not in w.prefixes or not shape or (traits is not PLAIN and traits != PLAIN):
        return False
    if id(name) in memo or id(value) in memo:
        return False
    out, slot, raw = w.out, w.count, name.encode("utf-8", "surrogatepass")
    out += _WORD(_TEXT, len(raw))
    out += raw
    out += _WORD(_PUT, slot)
    memo[id(name)] = slot
    w.count = slot + 1
    memo[id(value)] = _usual(w, w.store(leaf))
    w.alive += (name, value)
    return True


def _usual(w: Writer, place: Placement) -> int:
    """The record of a strided tensor with nothing unusual, from prepared parts."""
    key, location, nbytes, spec = place
    out, slot, dtype = w.out, w.count, spec.dtype
    out += w.prefixes[dtype]
    key = w.keys.setdefault(key, key)
    known = w.memo.get(id(key))
    if known is None:
        raw = key.encode()
        out += _WORD(_TEXT, len(raw))
        out += raw
        out += _WORD(_PUT, slot)
        w.memo[id(key)] = slot
        slot += 1
    else:
        out += get(known)
    if w.dtypes.setdefault(key, dtype) is not dtype:
        one_dtype(w, key, dtype)
    if location == "cpu":
        out += w.cpu
    else:
        w.count = slot
        slot = w.fresh_text(location) + 1
    sizes, strides = w.shapes.get(spec) or _sizes(w, spec)
    out += integer(nbytes // dtype.itemsize)
    out += _MIDDLE(b"tr", slot)
    out += sizes
    out += _WORD(_PUT, slot + 1)
    out += strides
    out += _WORD(_PUT, slot + 2)
    out += w.tail(slot + 3)
    w.count = slot + 6
    return slot + 5


def _sizes(w: Writer, spec: Spec) -> tuple[bytes, bytes]:
    _, shape, strides, offset = spec
    found = w.shapes[spec] = (b"Q" + integer(offset) + tuple_of(shape), tuple_of(strides))
    return found


# tensors made of several


def _layout(w: Writer, name: str) -> None:
    slot = w.named.get(("layout", name))
    if slot is not None:
        w.out.extend(get(slot))
        return
    w.reference("torch.serialization", "_get_layout")
    w.fresh_text(f"torch.{name}")
    _tuple(w, b"\x85")
    w.out.extend(b"R")
    w.named["layout", name] = w.put()


def size(w: Writer, shape: tuple[int, ...]) -> None:
    """A torch.Size, without a slot of its own."""
    w.reference("torch", "Size")
    w.integers(shape)
    _tuple(w, b"\x85")
    w.out.extend(b"R")


def _sparse(w: Writer, value: Compound, roles: tuple[str, ...], coalesced: object = None) -> None:
    _layout(w, value.layout)
    w.out.extend(b"(")
    for role in roles:
        tensor(w, value.parts[role], False)
    size(w, value.shape)
    w.put()
    if coalesced is not None:  # Files before torch 2.0 do not say.
        w.flag(bool(coalesced))
    _tuple(w, b"t")
    _tuple(w, b"\x86")


def _sparse_coo(w: Writer, value: Compound, requires_grad: bool) -> None:
    _sparse(w, value, ("indices", "values"), value.facts.get("coalesced"))


def _sparse_compressed(w: Writer, value: Compound, requires_grad: bool) -> None:
    _sparse(w, value, ("compressed_indices", "plain_indices", "values"))


def _nested(w: Writer, value: Compound, requires_grad: bool) -> None:
    w.out.extend(b"(")
    for role in ("values", "sizes", "strides", "offsets"):
        tensor(w, value.parts[role], False)
    _tuple(w, b"t")


def _meta(w: Writer, value: Compound, requires_grad: bool) -> None:
    w.out.extend(b"(")
    w.reference("torch", value.dtype.name)
    w.integers(value.shape)
    strides: Any = value.facts["strides"]
    w.integers(strides)
    w.flag(requires_grad)
    _tuple(w, b"t")


def _quantized(w: Writer, value: Compound, requires_grad: bool) -> None:
    facts: Mapping[str, Any] = value.facts
    place = w.store(value.parts["values"])
    w.out.extend(b"(")
    storage(w, value.dtype, place)
    w.out.extend(integer(place.spec.offset))
    w.integers(value.shape)
    w.integers(contiguous_strides(value.shape) if value.dtype.name in PACKED else place.spec.strides)
    if facts["scheme"] == "per_tensor_affine":
        w.reference("torch", "per_tensor_affine")
        w.out.extend(b"G" + pack(">d", facts["scale"]) + integer(facts["zero_point"]))
        _tuple(w, b"\x87")
    else:
        # PyTorch writes this name for both schemes by channel; the dtype of the zero points tells them apart.
        w.out.extend(b"(")
        w.reference("torch", "per_channel_affine")
        tensor(w, value.parts["scales"], False)
        tensor(w, value.parts["zero_points"], False)
        w.out.extend(integer(facts["axis"]))
        _tuple(w, b"t")
    w.flag(requires_grad)
    hooks(w)
    _tuple(w, b"t")


def constant(w: Writer, value: TorchConstant) -> None:
    """A device, layout, qscheme or memory format."""
    if value.kind == "layout":
        _layout(w, value.name)
    elif value.kind == "device":
        if w.again(value):
            return
        kind, _, index = value.name.partition(":")
        w.reference("torch", "device")
        w.fresh_text(kind)
        w.out.extend(integer(int(index)) if index else b"")
        _tuple(w, b"\x86" if index else b"\x85")
        w.out.extend(b"R")
        w.memoize(value)
    else:
        w.reference("torch", value.name)


_COMPOUNDS: dict[str, tuple[str, Callable[[Writer, Compound, bool], None]]] = {
    "sparse_coo": ("_rebuild_sparse_tensor", _sparse_coo),
    "sparse_csr": ("_rebuild_sparse_tensor", _sparse_compressed),
    "sparse_csc": ("_rebuild_sparse_tensor", _sparse_compressed),
    "sparse_bsr": ("_rebuild_sparse_tensor", _sparse_compressed),
    "sparse_bsc": ("_rebuild_sparse_tensor", _sparse_compressed),
    "nested": ("_rebuild_nested_tensor", _nested),
    "meta": ("_rebuild_meta_tensor_no_storage", _meta),
    "quantized": ("_rebuild_qtensor", _quantized),
}
