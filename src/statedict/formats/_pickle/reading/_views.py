"""What every constructor of tensors checks: arguments, flags, storages, and the bounds of views.

Bounds are proved with exact integers before any array library sees a number: sizes and strides are counts, and the last
element that a view reaches lies within its storage.
"""

from __future__ import annotations

from typing import Any, NoReturn

from statedict.errors import BoundsError, FormatError
from statedict.state import PLAIN, DType, Opaque, Spec, Traits

from ..._limits import Limits
from ...storages._shape import check_addressable
from .._values import Size, TypedStorage
from ._machine import Unfit

Args = tuple[Any, ...]
_MOST = (1 << 63) - 1


def spec_in(storage: TypedStorage, of: DType, offset: Any, size: Any, stride: Any, limits: Limits) -> Spec:
    """The Spec of a view into `storage`, or FormatError where it is none. An empty view's offset becomes 0."""
    shape, strides = counts(size, "size", limits), counts(stride, "stride", limits)
    if len(shape) != len(strides):
        refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
    if type(offset) is not int or not 0 <= offset <= _MOST:
        refuse("its offset is no count")
    spec = Spec(of, shape, strides, offset)
    if 0 in shape:
        check_addressable(shape, of.itemsize)
        return spec._replace(offset=0) if offset else spec
    if spec.nbytes > _MOST:
        refuse(f"it shows {spec.numel:,} elements, more than any memory has")
    if spec.reach * of.itemsize > storage.nbytes:
        raise BoundsError(
            f"a tensor cannot be what the file says: it reaches {spec.reach * of.itemsize:,} bytes into a storage of "
            f"{storage.nbytes:,}"
        )
    return spec


def counts(values: Any, what: str, limits: Limits) -> tuple[int, ...]:
    if type(values) not in (tuple, Size, list):
        refuse(f"its {what} is a {type(values).__name__}")
    if len(values) > limits.dimensions:
        raise limits.exceeded("dimensions", f"a tensor of {len(values):,} dimensions")
    for value in values:
        if type(value) is not int or not 0 <= value <= _MOST:
            refuse(f"its {what} has an entry that is no count")
    return tuple(values)


def refuse(why: str) -> NoReturn:
    raise FormatError(f"a tensor cannot be what the file says: {why}")


def typed(storage: Any) -> TypedStorage:
    if type(storage) is Opaque and storage.name == "_load_from_bytes":
        raise Unfit  # Its file inside the pickle was not read, so the tensor is not known either.
    if type(storage) is not TypedStorage:
        refuse(f"its storage is a {type(storage).__name__}")
    return storage


def flag(value: Any) -> bool:
    if type(value) is not bool:
        refuse(f"its requires_grad is a {type(value).__name__}")
    return value


def traits_of(requires_grad: Any, metadata: Any = None) -> Traits:
    if metadata is not None:
        if type(metadata) is not dict:
            refuse(f"its metadata is a {type(metadata).__name__}")
        return Traits(
            requires_grad=flag(requires_grad), conj=metadata.get("conj") is True, neg=metadata.get("neg") is True
        )
    return Traits(requires_grad=True) if flag(requires_grad) else PLAIN


def fixed(args: Args, least: int, most: int = 0) -> Args:
    """The arguments filled up with None; FormatError where there are too few or too many."""
    if not least <= len(args) <= max(least, most):
        refuse(f"it is rebuilt from {len(args)} values instead of {least}")
    return args + (None,) * (most - len(args))
