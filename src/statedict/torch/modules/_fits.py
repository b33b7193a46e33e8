"""Check whether a value fits its parameter or buffer; the error texts are PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.overrides import is_tensor_like

from statedict.errors import PartError
from statedict.state import Compound, Leaf, Parts, contiguous, leaf_of, library_of, materialize

from ..tensors._copy_pairs import failed, not_a_tensor, wrong_size
from ..tensors._library import TORCH


class MisfitError(Exception):
    """A value does not fit; the text says why. Caught where slots are decided one by one."""


def checked(key: str, param: Any, value: Any) -> Any:
    """Return the value as a tensor, Leaf or Compound of the parameter's shape; raises MisfitError."""
    value = _as_tensor_or_leaf(key, value)
    if is_lazy(value):
        if is_lazy(param):
            return value
        reason = RuntimeError("it is not initialized in the state: run a forward pass before saving")
        raise MisfitError(failed(key, param.shape, "unknown", reason))
    if is_lazy(param):
        return value
    found, wanted = shape_of(value), param.shape
    if len(wanted) == 0 and len(found) == 1 and found[0] == 1:
        # PyTorch 0.3 saved scalars as vectors of one element.
        value, found = _first(value), wanted
    if found != wanted:
        raise MisfitError(wrong_size(key, found, wanted))
    return value


def whole_here(key: str, param: Any, value: Any) -> Any:
    """Return the value, and Parts as the whole tensor; raises MisfitError if this process does not have all of it."""
    if not isinstance(value, Parts):
        return value
    try:
        return value.whole()
    except PartError as error:
        raise MisfitError(failed(key, param.shape, shape_of(value), RuntimeError(str(error)))) from error


def shape_of(value: Any) -> torch.Size:
    """The shape of a tensor, Leaf or Compound."""
    if isinstance(value, Leaf):
        return torch.Size(value.spec.shape)
    return torch.Size(value.shape) if isinstance(value, Compound) else value.shape


def is_on_meta(value: Any) -> bool:
    """Whether a tensor, Leaf or Compound is on the meta device: it has a shape but no elements."""
    if isinstance(value, Compound):
        return value.layout == "meta" or any(part.storage.location == "meta" for part in value.parts.values())
    return value.storage.location == "meta" if isinstance(value, Leaf) else value.is_meta


def read_now(value: Any, *, verify: bool) -> Any:
    """Return the value as a tensor, reading it if necessary."""
    if isinstance(value, (Leaf, Compound)):
        return materialize([value], TORCH, verify=verify)[0]
    return value


def _as_tensor_or_leaf(key: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value
    leaf = leaf_of(value) if isinstance(value, (Leaf, Compound)) or library_of(value) is not None else None
    if isinstance(leaf, Leaf) and isinstance(leaf.storage.key, tuple) and leaf.storage.key[0] == "memory":
        # Live memory, possibly the model's own: viewed as a tensor, so that the copy can detect that.
        return materialize([leaf], TORCH, mapped=True, verify=False)[0]
    if leaf is not None:
        return leaf
    if is_tensor_like(value):  # type: ignore[no-untyped-call]
        return value
    raise MisfitError(not_a_tensor(key, value))


def _first(value: Any) -> Any:
    if isinstance(value, Leaf):
        return Leaf(contiguous(value.spec.dtype, (), value.spec.offset), value.storage, value.traits)
    return read_now(value, verify=True)[0] if isinstance(value, Compound) else value[0]
