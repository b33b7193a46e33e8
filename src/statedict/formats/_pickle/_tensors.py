"""Constructors of tensors: torch's rebuild functions, as leaves.

The bounds are proved here, with exact integers, before any array library sees a number: sizes and strides are counts,
and the last element that a view reaches lies within its storage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from statedict.errors import FormatError
from statedict.state import PLAIN, Compound, DType, Leaf, Opaque, Spec, Storage, Traits, cast_leaf, dtype, leaf_of

from .._limits import Limits
from ._machine import Machine, Unfit
from ._names import is_tensor_type
from ._values import Size, TorchConstant, TypedStorage

Args = tuple[Any, ...]
Tensor = Leaf | Compound

_BYTE = dtype("uint8")
_MOST = (1 << 63) - 1


def spec_in(storage: TypedStorage, of: DType, offset: Any, size: Any, stride: Any, limits: Limits) -> Spec:
    """The Spec of a view into `storage`, or FormatError where it is none. An empty view's offset becomes 0."""
    shape, strides = _counts(size, "size", limits), _counts(stride, "stride", limits)
    if len(shape) != len(strides):
        _refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
    if type(offset) is not int or not 0 <= offset <= _MOST:
        _refuse("its offset is no count")
    spec = Spec(of, shape, strides, offset)
    if 0 in shape:
        return spec._replace(offset=0) if offset else spec
    if spec.nbytes > _MOST:
        _refuse(f"it shows {spec.numel:,} elements, more than any memory has")
    if spec.reach * of.itemsize > storage.nbytes:
        _refuse(f"it reaches {spec.reach * of.itemsize:,} bytes into a storage of {storage.nbytes:,}")
    return spec


def _counts(values: Any, what: str, limits: Limits) -> tuple[int, ...]:
    if type(values) not in (tuple, Size, list):
        _refuse(f"its {what} is a {type(values).__name__}")
    if len(values) > limits.dimensions:
        raise limits.exceeded("dimensions", f"a tensor of {len(values):,} dimensions")
    for value in values:
        if type(value) is not int or not 0 <= value <= _MOST:
            _refuse(f"its {what} has an entry that is no count")
    return tuple(values)


def _refuse(why: str) -> NoReturn:
    raise FormatError(f"a tensor cannot be what the file says: {why}")


def _typed(storage: Any) -> TypedStorage:
    if type(storage) is not TypedStorage:
        _refuse(f"its storage is a {type(storage).__name__}")
    return storage


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        _refuse(f"its requires_grad is a {type(value).__name__}")
    return value


def _traits(requires_grad: Any, metadata: Any = None) -> Traits:
    if metadata:
        if type(metadata) is not dict:
            _refuse(f"its metadata is a {type(metadata).__name__}")
        return Traits(
            requires_grad=_flag(requires_grad), conj=metadata.get("conj") is True, neg=metadata.get("neg") is True
        )
    return Traits(requires_grad=True) if _flag(requires_grad) else PLAIN


# strided tensors


def _rebuild_tensor(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride = _fixed(args, 4)
    storage = _typed(storage)
    return Leaf(spec_in(storage, storage.dtype or _BYTE, offset, size, stride, m.limits), storage.storage)


def _rebuild_tensor_v2(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride, requires_grad, _, metadata = _fixed(args, 6, 7)
    storage = _typed(storage)
    spec = spec_in(storage, storage.dtype or _BYTE, offset, size, stride, m.limits)
    return Leaf(spec, storage.storage, _traits(requires_grad, metadata))


def _rebuild_tensor_v3(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride, requires_grad, _, of, metadata = _fixed(args, 7, 8)
    storage = _typed(storage)
    if type(of) is not DType:
        _refuse("its dtype is none")
    spec = spec_in(storage, of, offset, size, stride, m.limits)
    return Leaf(spec, storage.storage, _traits(requires_grad, metadata))


def _rebuild_meta(m: Machine, args: Args) -> Tensor:
    of, size, stride, requires_grad = _fixed(args, 4)
    if type(of) is not DType:
        _refuse("its dtype is none")
    shape, strides = _counts(size, "size", m.limits), _counts(stride, "stride", m.limits)
    if len(shape) != len(strides):
        _refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
    return Compound("meta", of, shape, {}, {"strides": strides}, _traits(requires_grad))


def _rebuild_on_device(m: Machine, args: Args) -> Tensor:
    """A tensor of a device that saves its CPU copy, as an array or a tensor."""
    data, of, _, requires_grad = _fixed(args, 4)
    leaf = leaf_of(data)
    if not isinstance(leaf, Leaf) or type(of) is not DType:
        raise Unfit
    leaf = cast_leaf(leaf, of)
    return Leaf(leaf.spec, leaf.storage, leaf.traits._replace(requires_grad=_flag(requires_grad)))


# parameters and subclasses


def _rebuild_parameter(m: Machine, args: Args) -> Tensor:
    data, requires_grad, _ = _fixed(args, 3)
    return _retraited(data, parameter=True, requires_grad=_flag(requires_grad))


def _rebuild_parameter_with_state(m: Machine, args: Args) -> Tensor:
    data, requires_grad, _, state = _fixed(args, 4)
    attributes = _attributes(m, state)
    return _retraited(data, parameter=True, requires_grad=_flag(requires_grad), attributes=attributes)


def _rebuild_from_type(m: Machine, args: Args) -> Tensor:
    """A subclass of Tensor is its plain tensor, with the class's name and its attributes as traits."""
    function, kind, inner, state = _fixed(args, 4)
    if not all(type(each) is Opaque and each.args is None for each in (function, kind)) or type(inner) is not tuple:
        raise Unfit
    rebuild = _INNER.get((function.module, function.name))
    if rebuild is None:
        raise Unfit
    plain = rebuild(m, inner)
    attributes = _attributes(m, state)
    if is_tensor_type(kind.module, kind.name):
        return _retraited(plain, attributes=attributes)
    if kind.path in ("torch.nn.parameter.Parameter", "torch.nn.Parameter"):
        return _retraited(plain, attributes=attributes, parameter=True)
    return _retraited(plain, attributes=attributes, subclass=kind.path)


def _new_parameter(m: Machine, args: Args) -> Tensor:
    """`Parameter.__new__(cls, data, requires_grad=True)`, as pickles before torch 0.4 have it."""
    if not 0 < len(args) <= 2:
        raise Unfit
    return _retraited(args[0], parameter=True, requires_grad=_flag(args[1]) if len(args) == 2 else True)


def _retraited(data: Any, **changes: Any) -> Tensor:
    if isinstance(data, Leaf):
        return Leaf(data.spec, data.storage, data.traits._replace(**changes))
    if isinstance(data, Compound):
        traits = data.traits._replace(**changes)
        return Compound(data.layout, data.dtype, data.shape, data.parts, data.facts, traits)
    raise Unfit


# What Tensor computes or keeps in C: a file that sets one of these is after something else than an attribute.
_RESERVED = frozenset(
    name
    for line in (
        "T H mT mH data grad grad_fn requires_grad real imag names shape dtype device layout itemsize nbytes ndim name",
        "is_leaf output_nr retains_grad volatile grad_dtype _grad _grad_fn _base _cdata _version _backward_hooks",
        "_post_accumulate_grad_hooks _python_dispatch _has_symbolic_sizes_strides",
    )
    for name in line.split()
)


def _attributes(m: Machine, state: Any) -> Mapping[str, object] | None:
    """The Python attributes saved with a tensor; None where there are none."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    found: dict[str, object] = {}
    for part in parts:
        if part is None:
            continue
        if type(part) is not dict:
            raise Unfit
        m.charge(64 * len(part))
        for name, value in part.items():
            if type(name) is not str or not name.isidentifier() or name.startswith("__") or name in _RESERVED:
                _refuse(f"its attribute {str(name)[:100]!r} would change what a tensor is")
            found[name] = value
            m.attributed = True
    return found or None


# tensors made of several


def _rebuild_sparse(m: Machine, args: Args) -> Tensor:
    layout, data = _fixed(args, 2)
    if type(layout) is not TorchConstant or layout.kind != "layout" or type(data) is not tuple:
        _refuse("its layout or its data is none")
    if layout.name == "sparse_coo":
        return _sparse_coo(m, data)
    if layout.name in _COMPRESSED:
        return _sparse_compressed(m, layout.name, data)
    raise Unfit


_COMPRESSED = ("sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")


def _sparse_coo(m: Machine, data: Args) -> Tensor:
    indices, values, size, coalesced = _fixed(data, 3, 4)
    indices, values, shape = _part(indices, "indices"), _part(values, "values"), _counts(size, "size", m.limits)
    if coalesced is not None and type(coalesced) is not bool:
        _refuse("its coalesced flag is none")
    if indices.spec.dtype.name != "int64" or len(indices.spec.shape) != 2 or not values.spec.shape:
        _refuse("its indices are no matrix of int64")
    sparse, count = indices.spec.shape
    if count != values.spec.shape[0] or shape[sparse:] != values.spec.shape[1:] or sparse > len(shape):
        _refuse(f"indices {list(indices.spec.shape)} and values {list(values.spec.shape)} make no {list(shape)}")
    parts = {"indices": indices, "values": values}
    return Compound("sparse_coo", values.spec.dtype, shape, parts, {"coalesced": coalesced}, values.traits)


def _sparse_compressed(m: Machine, layout: str, data: Args) -> Tensor:
    compressed, plain, values, size = _fixed(data, 4)
    parts = {
        "compressed_indices": _part(compressed, "compressed indices"),
        "plain_indices": _part(plain, "plain indices"),
        "values": _part(values, "values"),
    }
    shape = _counts(size, "size", m.limits)
    for role in ("compressed_indices", "plain_indices"):
        if parts[role].spec.dtype.name not in ("int32", "int64") or not parts[role].spec.shape:
            _refuse(f"its {role.replace('_', ' ')} are no vector of integers")
    if len(shape) < 2 or parts["plain_indices"].spec.shape[-1] not in parts["values"].spec.shape:
        _refuse("its indices and values do not fit each other")
    return Compound(layout, parts["values"].spec.dtype, shape, parts, {}, parts["values"].traits)


def _rebuild_nested(m: Machine, args: Args) -> Tensor:
    values, sizes, strides, offsets = (_part(part, "part") for part in _fixed(args, 4))
    parts = {"values": values, "sizes": sizes, "strides": strides, "offsets": offsets}
    if any(part.spec.dtype.name != "int64" for part in (sizes, strides, offsets)) or len(sizes.spec.shape) > 2:
        _refuse("its sizes, strides or offsets are no int64")
    if sizes.spec.shape != strides.spec.shape or sizes.spec.shape[:1] != offsets.spec.shape:
        _refuse("its sizes, strides and offsets do not fit each other")
    # How long each tensor inside is, is only known from the elements of `sizes`.
    shape = (*offsets.spec.shape, *(-1 for _ in range(sizes.spec.shape[1] if len(sizes.spec.shape) == 2 else 0)))
    return Compound("nested", values.spec.dtype, shape, parts, {}, values.traits)


def _part(value: Any, what: str) -> Leaf:
    if type(value) is not Leaf:
        _refuse(f"its {what} are a {type(value).__name__}")
    return value


def _rebuild_quantized(m: Machine, args: Args) -> Tensor:
    storage, offset, size, stride, parameters, requires_grad, _ = _fixed(args, 7)
    storage = _typed(storage)
    if storage.dtype is None or storage.dtype.kind != "quantized":
        _refuse(f"it is quantised, but its storage has elements of {storage.dtype}")
    if type(parameters) is not tuple or not parameters or type(parameters[0]) is not TorchConstant:
        _refuse("its quantisation parameters are none")
    values = Leaf(spec_in(storage, storage.dtype, offset, size, stride, m.limits), storage.storage)
    scheme = parameters[0].name
    quantizer = _QUANTIZERS.get(scheme)
    if quantizer is None:
        raise Unfit
    parts, facts = quantizer(m, values.spec, parameters)
    facts["scheme"] = scheme
    traits = _traits(requires_grad)
    return Compound("quantized", storage.dtype, values.spec.shape, {"values": values, **parts}, facts, traits)


def _per_tensor(m: Machine, spec: Spec, parameters: Args) -> tuple[dict[str, Leaf], dict[str, object]]:
    _, scale, zero_point = _fixed(parameters, 3)
    if type(scale) not in (float, int) or type(zero_point) is not int:
        _refuse("its scale or zero point is no number")
    return {}, {"scale": float(scale), "zero_point": zero_point}


def _per_channel(m: Machine, spec: Spec, parameters: Args) -> tuple[dict[str, Leaf], dict[str, object]]:
    _, scales, zero_points, axis = _fixed(parameters, 4)
    if type(axis) is not int or not 0 <= axis < len(spec.shape):
        _refuse("its quantisation axis is no dimension of it")
    parts = {"scales": _channel(m, scales), "zero_points": _channel(m, zero_points)}
    for role, part in parts.items():
        if part.spec.shape != (spec.shape[axis],):
            _refuse(f"it has {list(part.spec.shape)} {role.replace('_', ' ')} for {spec.shape[axis]} channels")
    return parts, {"axis": axis}


def _channel(m: Machine, value: Any) -> Leaf:
    """Scales or zero points: a tensor, or (before torch 1.6) a list of numbers."""
    if type(value) is list and all(type(number) in (int, float) for number in value):
        import numpy as np

        m.charge(8 * len(value))
        try:
            array = np.array(value, "<f8" if any(type(number) is float for number in value) else "<i8")
        except OverflowError:
            _refuse("a zero point of it is no 64-bit integer")
        value = leaf_of(array)
    return _part(value, "scales or zero points")


_QUANTIZERS = {
    "per_tensor_affine": _per_tensor,
    "per_channel_affine": _per_channel,
    "per_channel_affine_float_qparams": _per_channel,
}


# the state of tensors in the oldest pickles


def empty_tensor(m: Machine, args: Args) -> Tensor:
    """`torch.FloatTensor()`, which a BUILD then points at its storage."""
    if args:
        raise FormatError("a tensor class is called with arguments: memory is asked for that the file does not pay for")
    return Leaf(Spec(dtype("float32"), (0,), (1,)), NOWHERE)


def build(m: Machine, target: Leaf, state: Any) -> None:
    """`Tensor.__setstate__`: (storage, offset, size, stride), or what torch 0.1 to 0.3 kept of a Variable."""
    if type(state) is not tuple or len(state) not in (3, 4, 5):
        raise FormatError("attributes are set on a tensor")
    if len(state) == 4:
        if target.storage is not NOWHERE:
            raise FormatError("a tensor that has its elements is given others")
        fresh = _rebuild_tensor(m, state)
        target.spec, target.storage = fresh.spec, fresh.storage  # type: ignore[union-attr]
        return
    if len(state) == 5:
        if type(state[0]) is not Leaf:
            _refuse(f"its data is a {type(state[0]).__name__}")
        target.spec, target.storage = state[0].spec, state[0].storage
    flag = state[0] if len(state) == 3 else state[3]
    target.traits = target.traits._replace(requires_grad=_flag(flag))


def _load_from_bytes(m: Machine, args: Args) -> Any:
    """The storage of a tensor that was pickled without torch.save: a whole legacy file as bytes."""
    if m.nested is None or len(args) != 1 or type(args[0]) is not bytes:
        raise Unfit
    m.charge(len(args[0]))
    inside = m.nested(args[0])
    m.imports += inside.globals
    return inside.value


def _constant(kind: Any, *, prefix: str = "") -> Callable[[Machine, Args], Any]:
    def construct(m: Machine, args: Args) -> Any:
        if not 0 < len(args) <= 2 or type(args[0]) is not str or len(args[0]) > 100 or not args[0].isprintable():
            raise Unfit
        if len(args) == 2 and (type(args[1]) is not int or not 0 <= args[1] < 1 << 15):
            raise Unfit
        return TorchConstant(kind, args[0].removeprefix(prefix) + (f":{args[1]}" if len(args) == 2 else ""))

    return construct


def _fixed(args: Args, least: int, most: int = 0) -> Args:
    """The arguments filled up with None; FormatError where there are too few or too many."""
    if not least <= len(args) <= max(least, most):
        _refuse(f"it is rebuilt from {len(args)} values instead of {least}")
    return args + (None,) * (most - len(args))


class _Nowhere:
    """The Source of a tensor that was made without elements."""

    def read_into(self, reads: Any) -> None:
        """There is nothing to read."""

    def verify(self, storages: Any) -> None:
        """There is nothing to verify."""

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        return memoryview(bytearray())


NOWHERE = Storage(_Nowhere(), ("nowhere",), 0)
_INNER: dict[tuple[str, str], Callable[[Machine, Args], Tensor]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter_with_state,
    ("torch._utils", "_rebuild_qtensor"): _rebuild_quantized,
    ("torch._utils", "_rebuild_sparse_tensor"): _rebuild_sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _rebuild_nested,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _rebuild_meta,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _rebuild_on_device,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _rebuild_on_device,
    ("torch._utils", "_rebuild_xla_tensor"): _rebuild_on_device,
}
CONSTRUCTORS: dict[tuple[str, str], Callable[[Machine, Args], Any]] = {
    **_INNER,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _new_parameter,
    ("torch.nn", "Parameter"): _new_parameter,
    ("torch.storage", "_load_from_bytes"): _load_from_bytes,
    ("torch", "device"): _constant("device"),
    ("torch.serialization", "_get_layout"): _constant("layout", prefix="torch."),
}
HARMLESS = frozenset(
    {("torch._utils", "_rebuild_wrapper_subclass"), ("torch.nn.parameter", "UninitializedParameter")}
    | {("torch.nn.parameter", "UninitializedBuffer"), ("torch.nn.parameter", "Buffer")}
)
