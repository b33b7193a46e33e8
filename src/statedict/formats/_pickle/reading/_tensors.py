"""Storages and strided tensors: persistent ids, and torch's rebuild functions of all versions, as leaves.

Bounds are checked with exact integers before any array library receives a number: sizes and strides are non-negative,
and the last element of a view is inside its storage. `_compounds` uses the same checks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from statedict.errors import BoundsError, FormatError
from statedict.state import (
    PLAIN,
    Compound,
    DType,
    Leaf,
    Opaque,
    Spec,
    Storage,
    Traits,
    cast_leaf,
    check_bounds,
    dtype,
    leaf_of,
)

from ..._limits import Limits
from ...storages._shape import check_addressable
from .._names import storage_dtype
from .._values import Size, StorageId, TypedStorage
from ._machine import Args, Constructor, Machine, Unfit

Tensor = Leaf | Compound

_BYTE = dtype("uint8")
_MOST = (1 << 63) - 1
# A rounded-down size of the shortest file of torch.save (some 400 bytes); a small pickle may refer to the same file
# often.
SHORTEST_NESTED, MOST_NESTED = 256, 1_000


# storages


def identify(m: Machine, pid: Any) -> Any:
    """Return the value for a persistent id.

    torch's are tuples `("storage", type, key, location, numel)`, with a sixth field for views in legacy files;
    `("module", class, …)` in legacy files is the class of a module, together with its source code.
    """
    if type(pid) is tuple and pid and type(pid[0]) is str:
        if pid[0] == "storage":
            return m.storage(storage_id(pid))
        if pid[0] == "module" and len(pid) == 4 and type(pid[1]) is Opaque and pid[1].args is None:
            return pid[1]
    if m.persistent is None:
        raise FormatError("a persistent id does not identify a storage")
    return m.persistent(pid)


def storage_id(pid: tuple[Any, ...]) -> StorageId:
    """Return the id with the type of every field checked; the sizes are not yet compared with the file."""
    if len(pid) not in (5, 6):
        _refuse_id(f"it has {len(pid)} fields, not 5")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not Opaque or kind.args is not None:
        _refuse_id("its type is not a storage type")
    try:
        of = storage_dtype(kind.module, kind.name)
    except KeyError:
        _refuse_id(f"its type {kind.path} is not a storage type")
    if type(key) is not str or not 0 < len(key) <= 256 or not key.isprintable():
        # Early legacy files use the address, an integer, as the key.
        key = str(key) if type(key) is int and key.bit_length() <= 128 else _refuse_id("its key is not a string")
    if type(location) is not str:
        _refuse_id("its location is not a string")
    if type(numel) is not int or not 0 <= numel <= _MOST:
        _refuse_id("its number of elements is not a non-negative integer")
    return StorageId(of, key, location, numel, _view(pid[5]) if len(pid) == 6 else None)


def _view(view: Any) -> tuple[str, int, int] | None:
    if view is None:
        return None
    if type(view) is not tuple or len(view) != 3 or type(view[0]) not in (str, int) or view[0].__sizeof__() > 1024:
        _refuse_id("its view is not (key, offset, size)")
    key, offset, size = view
    if type(offset) is not int or type(size) is not int or offset < 0 or size < 0:
        _refuse_id("the offset or size of its view is not a non-negative integer")
    return str(key)[:256], offset, size


def _refuse_id(why: str) -> NoReturn:
    raise FormatError(f"the persistent id of a storage is malformed: {why}")


# checks of arguments


def refuse(why: str) -> NoReturn:
    raise FormatError(f"the file describes an invalid tensor: {why}")


def fixed(args: Args, least: int, most: int = 0) -> Args:
    """Return the arguments padded with None; raise FormatError if there are too few or too many."""
    if not least <= len(args) <= max(least, most):
        refuse(f"its rebuild function is called with {len(args)} arguments instead of {least}")
    return args + (None,) * (most - len(args))


def spec_in(storage: TypedStorage, of: DType, offset: Any, size: Any, stride: Any, limits: Limits) -> Spec:
    """Return the Spec of a view into `storage`; raise FormatError if it is not valid. An empty view's offset becomes 0."""
    shape, strides = shape_and_strides(size, stride, limits)
    if type(offset) is not int or not 0 <= offset <= _MOST:
        refuse("its offset is not a non-negative integer")
    spec = Spec(of, shape, strides, offset)
    if 0 in shape:
        check_addressable(shape, of.itemsize)
        return spec._replace(offset=0) if offset else spec
    if spec.nbytes > _MOST:
        refuse(f"it has {spec.numel:,} elements, more than can be addressed")
    if spec.reach * of.itemsize > storage.nbytes:
        raise BoundsError(
            f"the file describes an invalid tensor: it reaches {spec.reach * of.itemsize:,} bytes into a storage of "
            f"{storage.nbytes:,}"
        )
    return spec


def shape_and_strides(size: Any, stride: Any, limits: Limits) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape, strides = counts(size, "size", limits), counts(stride, "stride", limits)
    if len(shape) != len(strides):
        refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
    return shape, strides


def counts(values: Any, what: str, limits: Limits) -> tuple[int, ...]:
    if type(values) not in (tuple, Size, list):
        refuse(f"its {what} should be a tuple of integers, not {type(values).__name__}")
    if len(values) > limits.dimensions:
        raise limits.exceeded("dimensions", f"a tensor of {len(values):,} dimensions")
    for value in values:
        if type(value) is not int or not 0 <= value <= _MOST:
            refuse(f"its {what} has an entry that is not a non-negative integer")
    return tuple(values)


def typed(storage: Any) -> TypedStorage:
    if type(storage) is Opaque and storage.name == "_load_from_bytes":
        raise Unfit  # The nested file was not read, so the tensor is unknown too.
    if type(storage) is not TypedStorage:
        refuse(f"its storage should be a storage, not {type(storage).__name__}")
    return storage


def flag(value: Any) -> bool:
    if type(value) is not bool:
        refuse(f"its requires_grad should be a bool, not {type(value).__name__}")
    return value


def traits_of(requires_grad: Any, metadata: Any = None) -> Traits:
    if metadata is not None:
        if type(metadata) is not dict:
            refuse(f"its metadata should be a mapping, not {type(metadata).__name__}")
        conj, neg = metadata.get("conj") is True, metadata.get("neg") is True
        return Traits(requires_grad=flag(requires_grad), conj=conj, neg=neg)
    return Traits(requires_grad=True) if flag(requires_grad) else PLAIN


# rebuild functions


def _leaf(m: Machine, place: Args, of: DType | None = None) -> Leaf:
    """Return the leaf of (storage, offset, size, stride)."""
    storage, offset, size, stride = place
    storage = typed(storage)
    spec = spec_in(storage, of or storage.dtype or _BYTE, offset, size, stride, m.limits)
    return Leaf(spec, storage.storage)


def _rebuild_tensor(m: Machine, args: Args) -> Leaf:
    return _leaf(m, fixed(args, 4))


def _rebuild_tensor_v2(m: Machine, args: Args) -> Leaf:
    *place, requires_grad, _, metadata = fixed(args, 6, 7)
    return _single(m, _leaf(m, tuple(place)), traits_of(requires_grad, metadata))


def _rebuild_tensor_v3(m: Machine, args: Args) -> Leaf:
    *place, requires_grad, _, of, metadata = fixed(args, 7, 8)
    typed(place[0])
    return _single(m, _leaf(m, tuple(place), _dtype(of)), traits_of(requires_grad, metadata))


def _single(m: Machine, leaf: Leaf, traits: Traits) -> Leaf:
    leaf = Leaf(leaf.spec, leaf.storage, traits)
    if m.rows is not None:
        m.rows.single.append(leaf)
    return leaf


def _dtype(value: Any) -> DType:
    if type(value) is not DType:
        refuse("its dtype is not a dtype")
    return value


def _rebuild_meta(m: Machine, args: Args) -> Compound:
    of, size, stride, requires_grad = fixed(args, 4)
    of = _dtype(of)
    shape, strides = shape_and_strides(size, stride, m.limits)
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


def empty_tensor(m: Machine, args: Args) -> Leaf:
    """Return an empty `torch.FloatTensor()`, to which the BUILD that follows gives its storage."""
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
        fresh = _leaf(m, state)
        target.become(fresh.spec, fresh.storage, target.traits)
        return
    data = state[0] if len(state) == 5 else target
    if type(data) is not Leaf:
        refuse(f"its data should be a tensor, not {type(data).__name__}")
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
CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    **REBUILDERS,
    ("torch.storage", "_load_from_bytes"): _load_from_bytes,
}
