"""Constructors of tensors with several parts (sparse, nested, quantised), parameters, subclasses, devices and layouts.

Everything that can be checked without reading elements is checked here. Indices are elements: they are checked by the
code that builds an array from the compound (PyTorch does so on request).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from statedict.state import Compound, DType, Leaf, Opaque, contiguous_strides, leaf_of

from ..._limits import Limits
from .._names import PACKED, TORCH_CONSTANTS, is_attribute, is_tensor_type
from .._values import TorchConstant, TypedStorage
from . import _tensors, _wrappers
from ._machine import Args, Constructor, Machine, Unfit
from ._tensors import Tensor, counts, fixed, flag, refuse, shape_and_strides, spec_in, traits_of, typed

# sparse and nested


def _rebuild_sparse(m: Machine, args: Args) -> Compound:
    layout, data = fixed(args, 2)
    if type(layout) is not TorchConstant or layout.kind != "layout" or type(data) is not tuple:
        refuse("its layout or its data is malformed")
    if layout.name == "sparse_coo":
        return _sparse_coo(m, data)
    if layout.name in _COMPRESSED:
        return _sparse_compressed(m, layout.name, data)
    raise Unfit


_COMPRESSED = ("sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")


def _sparse_coo(m: Machine, data: Args) -> Compound:
    indices, values, size, coalesced = fixed(data, 3, 4)
    indices, values, shape = _part(indices, "indices"), _part(values, "values"), counts(size, "size", m.limits)
    if coalesced is not None and type(coalesced) is not bool:
        refuse("its coalesced flag is not a bool")
    if indices.spec.dtype.name != "int64" or len(indices.spec.shape) != 2 or not values.spec.shape:
        refuse("its indices are not a two-dimensional int64 tensor")
    sparse, count = indices.spec.shape
    if count != values.spec.shape[0] or shape[sparse:] != values.spec.shape[1:] or sparse > len(shape):
        refuse(
            f"indices {list(indices.spec.shape)} and values {list(values.spec.shape)} do not match the shape {list(shape)}"
        )
    parts = {"indices": indices, "values": values}
    return Compound("sparse_coo", values.spec.dtype, shape, parts, {"coalesced": coalesced}, values.traits)


def _sparse_compressed(m: Machine, layout: str, data: Args) -> Compound:
    compressed, plain, values, size = fixed(data, 4)
    parts = {
        "compressed_indices": _part(compressed, "compressed indices"),
        "plain_indices": _part(plain, "plain indices"),
        "values": _part(values, "values"),
    }
    shape = counts(size, "size", m.limits)
    for role in ("compressed_indices", "plain_indices"):
        if parts[role].spec.dtype.name not in ("int32", "int64") or not parts[role].spec.shape:
            refuse(f"its {role.replace('_', ' ')} are not an int32 or int64 tensor of at least one dimension")
    if len(shape) < 2 or parts["plain_indices"].spec.shape[-1] not in parts["values"].spec.shape:
        refuse("its indices and values do not match")
    return Compound(layout, parts["values"].spec.dtype, shape, parts, {}, parts["values"].traits)


def _rebuild_nested(m: Machine, args: Args) -> Compound:
    values, sizes, strides, offsets = (_part(part, "part") for part in fixed(args, 4))
    parts = {"values": values, "sizes": sizes, "strides": strides, "offsets": offsets}
    if any(part.spec.dtype.name != "int64" for part in (sizes, strides, offsets)) or len(sizes.spec.shape) > 2:
        refuse("its sizes, strides or offsets are not int64")
    if sizes.spec.shape != strides.spec.shape or sizes.spec.shape[:1] != offsets.spec.shape:
        refuse("its sizes, strides and offsets do not match")
    # The lengths of the nested tensors are only known from the elements of `sizes`.
    shape = (*offsets.spec.shape, *(-1 for _ in range(sizes.spec.shape[1] if len(sizes.spec.shape) == 2 else 0)))
    return Compound("nested", values.spec.dtype, shape, parts, {}, values.traits)


def _part(value: Any, what: str) -> Leaf:
    if type(value) is not Leaf:
        refuse(f"its {what} should be a tensor, not {type(value).__name__}")
    return value


# quantised


def _rebuild_quantized(m: Machine, args: Args) -> Compound:
    storage, offset, size, stride, parameters, requires_grad, _ = fixed(args, 7)
    storage = typed(storage)
    if storage.dtype is None or storage.dtype.kind != "quantized":
        refuse(f"it is quantised, but its storage has elements of {storage.dtype}")
    if type(parameters) is not tuple or not parameters or type(parameters[0]) is not TorchConstant:
        refuse("its quantisation parameters are malformed")
    shape, values = _quantized_values(storage, storage.dtype, offset, size, stride, m.limits)
    quantizer = _QUANTIZERS.get(parameters[0].name)
    if quantizer is None:
        raise Unfit
    parts, facts = quantizer(m, shape, parameters)
    traits = traits_of(requires_grad)
    return Compound("quantized", storage.dtype, shape, {"values": values, **parts}, facts, traits)


def _quantized_values(
    storage: TypedStorage, of: DType, offset: Any, size: Any, stride: Any, limits: Limits
) -> tuple[tuple[int, ...], Leaf]:
    """Return the shape of a quantised tensor and its values; packed values are all bytes of their storage."""
    if of.name not in PACKED:
        spec = spec_in(storage, of, offset, size, stride, limits)
        return spec.shape, Leaf(spec, storage.storage)
    shape, strides = shape_and_strides(size, stride, limits)
    if offset != 0 or strides != contiguous_strides(shape):
        refuse("its packed elements are not contiguous")
    row = -(-shape[-1] // PACKED[of.name]) if shape else 1
    if prod(shape[:-1]) * row > storage.nbytes:
        refuse(f"its packed elements do not fit into {storage.nbytes:,} bytes")
    return shape, storage.leaf()


def _per_tensor(m: Machine, shape: tuple[int, ...], parameters: Args) -> tuple[dict[str, Leaf], dict[str, object]]:
    _, scale, zero_point = fixed(parameters, 3)
    if type(scale) not in (float, int) or type(zero_point) is not int:
        refuse("its scale or zero point is not a number")
    return {}, {"scheme": "per_tensor_affine", "scale": float(scale), "zero_point": zero_point}


def _per_channel(m: Machine, shape: tuple[int, ...], parameters: Args) -> tuple[dict[str, Leaf], dict[str, object]]:
    _, scales, zero_points, axis = fixed(parameters, 4)
    if type(axis) is not int or not 0 <= axis < len(shape):
        refuse("its quantisation axis is out of range")
    parts = {"scales": _channel(m, scales), "zero_points": _channel(m, zero_points)}
    for role, part in parts.items():
        if part.spec.shape != (shape[axis],):
            refuse(f"it has {list(part.spec.shape)} {role.replace('_', ' ')} for {shape[axis]} channels")
    # PyTorch writes the same name for two schemes; floating-point zero points distinguish them.
    real = parts["zero_points"].spec.dtype.is_floating
    return parts, {"scheme": f"per_channel_affine{'_float_qparams' if real else ''}", "axis": axis}


def _channel(m: Machine, value: Any) -> Leaf:
    """Return scales or zero points, which are a tensor or (before torch 1.6) a list of numbers."""
    if type(value) is list and all(type(number) in (int, float) for number in value):
        import numpy as np

        m.charge(8 * len(value))
        try:
            array = np.array(value, "<f8" if any(type(number) is float for number in value) else "<i8")
        except OverflowError:
            refuse("one of its zero points is not a 64-bit integer")
        value = leaf_of(array)
    return _part(value, "scales or zero points")


_QUANTIZERS = {
    "per_tensor_affine": _per_tensor,
    "per_channel_affine": _per_channel,
    "per_channel_affine_float_qparams": _per_channel,
}


# parameters and subclasses


def _rebuild_parameter(m: Machine, args: Args) -> Tensor:
    data, requires_grad, _ = fixed(args, 3)
    return _retraited(data, parameter=True, requires_grad=flag(requires_grad))


def _rebuild_parameter_with_state(m: Machine, args: Args) -> Tensor:
    data, requires_grad, _, state = fixed(args, 4)
    attributes = _attributes(m, state)
    return _retraited(data, parameter=True, requires_grad=flag(requires_grad), attributes=attributes)


def _rebuild_from_type(m: Machine, args: Args) -> Tensor:
    """A subclass of Tensor becomes its plain tensor, with the name of the class and its attributes as traits."""
    function, kind, inner, state = fixed(args, 4)
    if not all(type(each) is Opaque and each.args is None for each in (function, kind)) or type(inner) is not tuple:
        raise Unfit
    if (function.module, function.name) == ("torch._utils", "_rebuild_wrapper_subclass"):
        return _wrappers.wrapper(m, kind, inner, state)
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
    """`Parameter.__new__(cls, data, requires_grad=True)`, as in pickles before torch 0.4."""
    if not 0 < len(args) <= 2:
        raise Unfit
    return _retraited(args[0], parameter=True, requires_grad=flag(args[1]) if len(args) == 2 else True)


def _retraited(data: Any, **changes: Any) -> Tensor:
    if isinstance(data, Leaf):
        return Leaf(data.spec, data.storage, data.traits._replace(**changes))
    if isinstance(data, Compound):
        traits = data.traits._replace(**changes)
        return Compound(data.layout, data.dtype, data.shape, data.parts, data.facts, traits)
    raise Unfit


def _attributes(m: Machine, state: Any) -> Mapping[str, object] | None:
    """Return the Python attributes saved with a tensor; None if it has none."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    found: dict[str, object] = {}
    for part in parts:
        if part is None:
            continue
        if type(part) is not dict:
            raise Unfit
        m.charge(64 * len(part))
        for name, value in part.items():
            if not is_attribute(name):
                refuse(f"its attribute {str(name)[:100]!r} is reserved by torch.Tensor")
            found[name] = value
            m.attributed = True
    return found or None


# constants


def _device(m: Machine, args: Args) -> Any:
    """`torch.device("cuda", 1)`; the index may be part of the text."""
    if not 0 < len(args) <= 2 or type(args[0]) is not str or not _DEVICE.match(args[0]):
        raise Unfit
    if len(args) == 1:
        return TorchConstant("device", args[0])
    if type(args[1]) is not int or not 0 <= args[1] < 1 << 15 or ":" in args[0]:
        raise Unfit
    return TorchConstant("device", f"{args[0]}:{args[1]}")


_DEVICE = re.compile(r"[a-z][a-z0-9_]{0,31}(:[0-9]{1,5})?\Z")


def _layout(m: Machine, args: Args) -> Any:
    found = TORCH_CONSTANTS.get(args[0].removeprefix("torch.")) if len(args) == 1 and type(args[0]) is str else None
    if not isinstance(found, TorchConstant) or found.kind != "layout":
        refuse("its layout is not a layout")
    return found


_INNER: dict[tuple[str, str], Constructor] = {
    **_tensors.REBUILDERS,
    ("torch._utils", "_rebuild_sparse_tensor"): _rebuild_sparse,
    ("torch._utils", "_rebuild_nested_tensor"): _rebuild_nested,
    ("torch._utils", "_rebuild_qtensor"): _rebuild_quantized,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter_with_state,
}
CONSTRUCTORS: dict[tuple[str, str], Constructor] = {
    **_INNER,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _new_parameter,
    ("torch.nn", "Parameter"): _new_parameter,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): _layout,
}
HARMLESS = _wrappers.HARMLESS | {
    ("torch.nn.parameter", "UninitializedParameter"),
    ("torch.nn.parameter", "UninitializedBuffer"),
    ("torch.nn.parameter", "Buffer"),
}
