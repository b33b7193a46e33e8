"""Constructors of strided tensors: torch's rebuild functions of all versions, as leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from statedict.errors import FormatError
from statedict.state import Compound, DType, Leaf, Spec, Storage, cast_leaf, check_bounds, dtype, leaf_of

from ._machine import Machine, Unfit
from ._views import Args, counts, fixed, flag, refuse, spec_in, traits_of, typed

Tensor = Leaf | Compound

_BYTE = dtype("uint8")
# A rounded-down size of the shortest file of torch.save (some 400 bytes); a small pickle may refer to the same file
# often.
SHORTEST_NESTED, MOST_NESTED = 256, 1_000


def _rebuild_tensor(m: Machine, args: Args) -> Leaf:
    storage, offset, size, stride = fixed(args, 4)
    storage = typed(storage)
    return Leaf(spec_in(storage, storage.dtype or _BYTE, offset, size, stride, m.limits), storage.storage)


def _rebuild_tensor_v2(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride, requires_grad, _, metadata = fixed(args, 6, 7)
    storage = typed(storage)
    spec = spec_in(storage, storage.dtype or _BYTE, offset, size, stride, m.limits)
    return _single(m, Leaf(spec, storage.storage, traits_of(requires_grad, metadata)))


def _rebuild_tensor_v3(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride, requires_grad, _, of, metadata = fixed(args, 7, 8)
    storage = typed(storage)
    if type(of) is not DType:
        refuse("its dtype is not a dtype")
    spec = spec_in(storage, of, offset, size, stride, m.limits)
    return _single(m, Leaf(spec, storage.storage, traits_of(requires_grad, metadata)))


def _single(m: Machine, leaf: Leaf) -> Leaf:
    if m.rows is not None:
        m.rows.single.append(leaf)
    return leaf


def _rebuild_meta(m: Machine, args: Args) -> Tensor:
    of, size, stride, requires_grad = fixed(args, 4)
    if type(of) is not DType:
        refuse("its dtype is not a dtype")
    shape, strides = counts(size, "size", m.limits), counts(stride, "stride", m.limits)
    if len(shape) != len(strides):
        refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
    return Compound("meta", of, shape, {}, {"strides": strides}, traits_of(requires_grad))


def _rebuild_on_device(m: Machine, args: Args) -> Tensor:
    """A tensor of a device type that saves its CPU copy, as an array or a tensor."""
    data, of, _, requires_grad = fixed(args, 4)
    leaf = leaf_of(data)
    if not isinstance(leaf, Leaf) or type(of) is not DType:
        raise Unfit
    try:
        leaf = cast_leaf(leaf, of)
    except ValueError:
        raise Unfit from None
    return Leaf(leaf.spec, leaf.storage, leaf.traits._replace(requires_grad=flag(requires_grad)))


def _load_from_bytes(m: Machine, args: Args) -> Any:
    """Return the storage of a tensor pickled without torch.save: a whole legacy file as bytes."""
    if m.nested is None or len(args) != 1 or type(args[0]) is not bytes:
        raise Unfit
    m.charge(len(args[0]))
    m.asked += 1
    if m.asked > MOST_NESTED + m.paid // SHORTEST_NESTED:
        raise FormatError(f"it contains more than {m.asked - 1:,} nested files, too many for its size")
    inside = m.nested(args[0])
    m.imports += inside.globals
    return inside.value


# state of tensors in the oldest pickles


def empty_tensor(m: Machine, args: Args) -> Tensor:
    """Return an empty `torch.FloatTensor()`, whose storage is set by the BUILD that follows."""
    if args:
        raise FormatError(
            "a tensor class is called with arguments, which would allocate memory without any data in the file"
        )
    return Leaf(Spec(dtype("float32"), (0,), (1,)), NOWHERE)


def build(m: Machine, target: Leaf, state: Any) -> None:
    """`Tensor.__setstate__`: (storage, offset, size, stride), or the form of a Variable in torch 0.1 to 0.3."""
    if type(state) is not tuple or len(state) not in (3, 4, 5):
        raise FormatError("the pickle sets attributes on a tensor")
    if len(state) == 4:
        if target.storage is not NOWHERE:
            raise FormatError("the state of a tensor is set twice")
        fresh = _rebuild_tensor(m, state)
        target.become(fresh.spec, fresh.storage, target.traits)
        return
    data = state[0] if len(state) == 5 else target
    if type(data) is not Leaf:
        refuse(f"its data should be a tensor, not a {type(data).__name__}")
    requires_grad = flag(state[0] if len(state) == 3 else state[3])
    target.become(data.spec, data.storage, target.traits._replace(requires_grad=requires_grad))


class _EmptySource:
    """The Source of a tensor created without elements."""

    def read_into(self, reads: Any, *, verify: bool = True) -> None:
        check_bounds((storage, start, len(into)) for storage, start, into in reads)

    def verify(self, storages: Any) -> None:
        """Do nothing: the tensor does not have bytes to verify."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return memoryview(bytearray())


NOWHERE = Storage(_EmptySource(), ("empty",), 0)
REBUILDERS: dict[tuple[str, str], Callable[[Machine, Args], Tensor]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _rebuild_meta,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_on_device,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _rebuild_on_device,
    ("torch._utils", "_rebuild_xla_tensor"): _rebuild_on_device,
}
CONSTRUCTORS: dict[tuple[str, str], Callable[[Machine, Args], Any]] = {
    **REBUILDERS,
    ("torch.storage", "_load_from_bytes"): _load_from_bytes,
}
