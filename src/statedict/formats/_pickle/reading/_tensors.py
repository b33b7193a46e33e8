"""Constructors of parameters, tensor subclasses, devices and layouts; the table of everything that torch rebuilds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from statedict.state import Compound, DType, Leaf, Opaque

from .._names import TORCH_CONSTANTS, is_attribute, is_tensor_type
from .._recipe import RecipeError, take_apart
from .._values import TorchConstant
from . import _compounds, _dtensors, _strided
from ._machine import Machine, Unfit
from ._views import Args, counts, fixed, flag, refuse

Tensor = Leaf | Compound


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
    if (function.module, function.name) == _WRAPPER:
        return _wrapper(m, kind, inner, state)
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


def _wrapper(m: Machine, kind: Opaque, inner: Args, state: Any) -> Tensor:
    """A DTensor becomes Parts, another tensor that wraps others a Compound if its attributes are plain data (else Unfit)."""
    if len(inner) != 8:
        raise Unfit
    of, dtype, size, stride, offset, layout, _, requires_grad = inner
    strided = type(layout) is TorchConstant and layout.kind == "layout"
    if of is not kind or type(dtype) is not DType or not strided:
        raise Unfit
    shape, strides = counts(size, "size", m.limits), counts(stride, "stride", m.limits)
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        refuse("its offset or its strides are not valid")
    if (kind.module, kind.name) in _dtensors.CLASSES:
        return _dtensors.parts_from(m, dtype, shape, state, flag(requires_grad))
    try:
        outer = (dtype, shape, strides, offset, layout.name)
        return take_apart(f"{kind.module}:{kind.name}", outer, flag(requires_grad), state, charge=m.charge)
    except RecipeError:
        raise Unfit from None


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


_INNER: dict[tuple[str, str], Callable[[Machine, Args], Tensor]] = {
    **_strided.REBUILDERS,
    **_compounds.REBUILDERS,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter_with_state,
}
CONSTRUCTORS: dict[tuple[str, str], Callable[[Machine, Args], Any]] = {
    **_INNER,
    **_strided.CONSTRUCTORS,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _new_parameter,
    ("torch.nn", "Parameter"): _new_parameter,
    ("torch", "device"): _device,
    ("torch.serialization", "_get_layout"): _layout,
}
_WRAPPER = ("torch._utils", "_rebuild_wrapper_subclass")
HARMLESS = frozenset(
    {_WRAPPER, ("torch.nn.parameter", "UninitializedParameter")}
    | {("torch.nn.parameter", "UninitializedBuffer"), ("torch.nn.parameter", "Buffer")}
    | _dtensors.HARMLESS
)
