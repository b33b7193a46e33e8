"""Checks shared by the constructors of tensors: arguments, flags, storages, and the bounds of views.

Bounds are checked with exact integers before any array library receives a number: sizes and strides are non-negative,
and the last element of a view is inside its storage.
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
    """Return the Spec of a view into `storage`; raise FormatError if it is not valid. An empty view's offset becomes 0."""
    shape, strides = counts(size, "size", limits), counts(stride, "stride", limits)
    if len(shape) != len(strides):
        refuse(f"it has {len(shape)} sizes but {len(strides)} strides")
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


def counts(values: Any, what: str, limits: Limits) -> tuple[int, ...]:
    if type(values) not in (tuple, Size, list):
        refuse(f"its {what} should be a tuple of integers, not a {type(values).__name__}")
    if len(values) > limits.dimensions:
        raise limits.exceeded("dimensions", f"a tensor of {len(values):,} dimensions")
    for value in values:
        if type(value) is not int or not 0 <= value <= _MOST:
            refuse(f"its {what} has an entry that is not a non-negative integer")
    return tuple(values)


def refuse(why: str) -> NoReturn:
    raise FormatError(f"the file describes an invalid tensor: {why}")


def typed(storage: Any) -> TypedStorage:
    if type(storage) is Opaque and storage.name == "_load_from_bytes":
        raise Unfit  # The nested file was not read, so the tensor is unknown too.
    if type(storage) is not TypedStorage:
        refuse(f"its storage should be a storage, not a {type(storage).__name__}")
    return storage


def flag(value: Any) -> bool:
    if type(value) is not bool:
        refuse(f"its requires_grad should be a bool, not a {type(value).__name__}")
    return value


def traits_of(requires_grad: Any, metadata: Any = None) -> Traits:
    if metadata is not None:
        if type(metadata) is not dict:
            refuse(f"its metadata should be a mapping, not a {type(metadata).__name__}")
        return Traits(
            requires_grad=flag(requires_grad), conj=metadata.get("conj") is True, neg=metadata.get("neg") is True
        )
    return Traits(requires_grad=True) if flag(requires_grad) else PLAIN


def fixed(args: Args, least: int, most: int = 0) -> Args:
    """Return the arguments padded with None; raise FormatError if there are too few or too many."""
    if not least <= len(args) <= max(least, most):
        refuse(f"its rebuild function is called with {len(args)} arguments instead of {least}")
    return args + (None,) * (most - len(args))
