"""Check whether a value fits its parameter or buffer; the error texts are PyTorch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.overrides import is_tensor_like

from statedict.errors import PartError
from statedict.formats.torch_archive import TORCHAO
from statedict.state import Compound, Leaf, Parts, contiguous, leaf_of, library_of, materialize
from statedict.tree import not_a_tensor, wrong_size

from ..tensors._copy_pairs import failed
from ..tensors._library import TORCH
from ..tensors._wrapper import (
    as_in_torchao_json,
    inner_tensors,
    is_allowed,
    is_wrapped,
    is_wrapper,
    misfit,
    taken_apart,
    with_parts,
)


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


def wrapper_pairs(key: str, param: Any, value: Any) -> list[tuple[Any, Leaf]] | None:
    """Pairs of inner tensors of a parameter that wraps others, and the leaves of `value` that are to fill them.

    None if `value` is not the Compound of such a tensor, or is a live one that was made in another way, which PyTorch may
    be able to copy. Raises MisfitError if the parts cannot fill the parameter.
    """
    found = leaf_of(value) if is_wrapper(value) else value
    if not isinstance(found, Compound) or not is_wrapped(found):
        return None
    taken = taken_apart(param, TORCH.leaf)
    reason = wrapper_reason(param, found)
    if taken is not None and reason is None:
        return [(taken.tensors[role], leaf) for role, leaf in found.parts.items()]
    if found is value:
        raise MisfitError(unfit(key, str(reason)))
    return None


def check_replacement(key: str, current: Any, value: Compound) -> None:
    """Raise MisfitError if the tensor of a Compound cannot be made: neither as `current`, nor by an allowed class."""
    if is_wrapped(value) and not is_allowed(value):
        reason = wrapper_reason(current, value)
        if reason is None and not inner_tensors(current).keys() <= value.parts.keys():
            reason = "its class does not keep its parts in attributes of their names, so load it without assign=True"
        if reason is not None:
            raise MisfitError(unfit(key, reason))


def made_for(current: Any, made: Any) -> Any:
    """The tensor for a Compound that was read: made by the class of `current`, if the class is not an allowed one."""
    if not isinstance(made, Compound):
        return made
    tensors = materialize(list(made.parts.values()), TORCH, mapped=True, verify=False)
    return with_parts(current, dict(zip(made.parts, tensors)))


def wrapper_reason(param: Any, value: Any) -> str | None:
    """Why a value does not fit a parameter, if one of them wraps other tensors, in words; None if it fits."""
    taken = taken_apart(param, TORCH.leaf)
    found = leaf_of(value)
    wrapped = found if isinstance(found, Compound) and is_wrapped(found) else None
    is_described = wrapped is not None and str(wrapped.facts["class"]).startswith(f"{TORCHAO}:")
    if taken is not None and wrapped is not None:
        return misfit(as_in_torchao_json(param, taken.compound) if is_described else taken.compound, wrapped)
    kind = (
        f"{type(param).__module__}.{type(param).__qualname__}" if is_wrapper(param) else f"plain {param.dtype} tensor"
    )
    if wrapped is None:
        return f"the model has a {kind}, and the checkpoint a plain tensor: load it before the model is converted"
    return (
        f"the model has a {kind}, and the checkpoint a {str(wrapped.facts['class']).replace(':', '.')}, made of the parts "
        f"{', '.join(wrapped.parts)}: convert the model first (quantize it as the saved one was)"
        f"{'' if is_described else ', or import the library of that class and load with assign=True'}"
    )


def unfit(key: str, reason: str) -> str:
    return f'While copying the parameter named "{key}": {reason}.'


def read_now(value: Any, *, verify: bool) -> Any:
    """Return the value as a tensor, reading it if necessary."""
    if isinstance(value, (Leaf, Compound)):
        return materialize([value], TORCH, verify=verify)[0]
    return value


def _as_tensor_or_leaf(key: str, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value
    leaf = leaf_of(value) if isinstance(value, (Leaf, Compound)) or library_of(value) is not None else None
    if isinstance(leaf, Leaf) and leaf.storage.is_live:
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
