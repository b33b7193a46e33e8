"""Tensors that wrap others (`__tensor_flatten__`): torchao's, quanto's and all others. There is no table of classes.

A live one is taken apart into a Compound of layout `"wrapper"`: its attributes that are tensors, and a recipe of plain data
(`formats._pickle._recipe`). It is put together again by its class in one of two ways:

* as torch.load(weights_only=True) does, if the program has allowed the class and all others in the recipe
  (`torch.serialization.add_safe_globals`; torchao does so for its own when it is imported);
* by `__tensor_unflatten__` of the class of a tensor that the model has, if its recipe is the same.

Otherwise it stays a Compound. A class is never imported or looked up because a file names it. torchao's own safetensors
files name classes without their modules; their tensors only fill those of a model that torchao describes in the same words.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any, NamedTuple

import torch

from statedict.errors import FormatError
from statedict.formats.torch_archive import (
    TORCHAO,
    WRAPPER,
    RecipeError,
    Size,
    TorchConstant,
    is_built,
    rebuilding,
    recipe_state,
    reduced,
    take_apart,
    unknown,
)
from statedict.state import Compound, Leaf, Opaque, map_tree

from ._dtypes import DTYPES_OF_TORCH
from ._values import maker, revived

LeafOf = Callable[[Any], Leaf | Compound | None]
# Exceptions that the code of a class raises if the parts do not fit together.
_MISFITS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)


class TakenApart(NamedTuple):
    """A live tensor as a Compound, and its inner tensors by role."""

    compound: Compound
    tensors: dict[str, torch.Tensor]


def is_wrapper(value: object) -> bool:
    """Whether a value is a tensor that wraps others. A DTensor, which is a part of a tensor, is not."""
    kind = type(value)
    if not hasattr(kind, "__tensor_flatten__") or not isinstance(value, torch.Tensor):
        return False
    return not any(base.__module__.startswith("torch.distributed.") for base in kind.__mro__)


def is_wrapped(value: object) -> bool:
    """Whether a value is the Compound of such a tensor."""
    return isinstance(value, Compound) and value.layout == WRAPPER


def taken_apart(tensor: torch.Tensor, leaf: LeafOf) -> TakenApart | None:
    """Take a tensor apart, aliasing its parts; None if it is not a wrapper, or its attributes are not plain data.

    `leaf` returns the leaf of an inner tensor.
    """
    kind = type(tensor)
    if (
        not is_wrapper(tensor)
        or kind.__reduce_ex__ is not torch.Tensor.__reduce_ex__
        or tensor.dtype not in DTYPES_OF_TORCH
    ):
        return None
    inner: dict[int, tuple[Leaf, torch.Tensor]] = {}

    def inert(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return _inert(value)
        found = taken_apart(value, leaf)
        if found is not None:
            inner.update((id(part), (part, found.tensors[role])) for role, part in found.compound.parts.items())
            return found.compound
        part = leaf(value)
        if isinstance(part, Leaf):
            inner[id(part)] = part, value
        return part

    try:
        layout = str(tensor.layout).removeprefix("torch.")
        shape, strides = tuple(map(int, tensor.shape)), tuple(map(int, tensor.stride()))
        outer = (DTYPES_OF_TORCH[tensor.dtype], shape, strides, int(tensor.storage_offset()), layout)
        state = torch._utils._get_obj_state(tensor)  # type: ignore[no-untyped-call]
        made = take_apart(f"{kind.__module__}:{kind.__qualname__}", outer, tensor.requires_grad, state, inert)
    except (RecipeError, *_MISFITS):
        return None
    return TakenApart(made, {role: inner[id(part)][1] for role, part in made.parts.items()})


def _inert(value: Any) -> Any:
    """The inert counterpart of a live value, as a pickle would describe it; values inside it are live."""
    constant = _CONSTANTS.get(type(value))
    if constant is not None:
        return constant(value)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return Opaque(value.__module__, value.__qualname__)
    try:
        function, args, *rest = reduced(value)
    except (*_MISFITS, pickle.PicklingError):
        unknown(value)
    state = rest[0] if rest else None
    if any(each is not None for each in rest[1:]):
        unknown(value)
    new = getattr(function, "__name__", "") == "__newobj__"
    called, args = (args[0], args[1:]) if new else (function, args)
    if is_built(called.__module__, called.__qualname__):
        # A set, an array: a pickle of it is read as that value, which is not plain data either.
        unknown(value)
    made = Opaque(called.__module__, called.__qualname__, tuple(args), new=new)
    made.state = state
    return made


def _constant(kind: Any) -> Callable[[Any], TorchConstant]:
    return lambda value: TorchConstant(kind, str(value).removeprefix("torch."))


_CONSTANTS: dict[type, Callable[[Any], Any]] = {
    torch.Size: lambda value: Size(map(int, value)),
    torch.dtype: lambda value: DTYPES_OF_TORCH.get(value),
    torch.device: _constant("device"),
    torch.layout: _constant("layout"),
    torch.memory_format: _constant("memory_format"),
    torch.qscheme: _constant("qscheme"),
}


def made_if_allowed(value: Compound, parts: Mapping[str, torch.Tensor]) -> Any:
    """The tensor that a recipe describes, or None if the program has not allowed its class or another one in it.

    Raises FormatError if the class finds that the parts do not fit the recipe.
    """
    call = rebuilding(value, parts, str(next(iter(parts.values())).device))
    if maker(call) is None:
        return None
    try:
        made = map_tree(call, revived, {id(part): part for part in parts.values()}, maker)
        again = _made_again(made)
    except _MISFITS as error:
        raise FormatError(f"the parts of a {value.facts['class']} do not fit together: {error}") from error
    if (type(again), again.shape) != (type(made), torch.Size(value.shape)):
        raise FormatError(
            f"the parts of a {value.facts['class']} make a tensor of shape {list(again.shape)}, "
            f"but the file says {list(value.shape)}"
        )
    return made


def _made_again(tensor: Any) -> Any:
    """The tensor made by its class from its parts, as a check of what a file says about the outer tensor."""
    if not hasattr(type(tensor), "__tensor_unflatten__"):
        return tensor
    names, context = tensor.__tensor_flatten__()
    inner = {name: getattr(tensor, name) for name in names}
    return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())


def is_allowed(value: Compound) -> bool:
    """Whether `made_if_allowed` would make the tensor."""
    return maker(rebuilding(value, value.parts, "cpu")) is not None


def with_parts(tensor: Any, parts: Mapping[str, torch.Tensor]) -> Any:
    """A tensor of the same class and context with other inner tensors, by role, by its class's `__tensor_unflatten__`."""
    names, context = tensor.__tensor_flatten__()
    inner = {}
    for name in names:
        below = {role.removeprefix(f"{name}."): part for role, part in parts.items() if role.startswith(f"{name}.")}
        inner[name] = parts[name] if name in parts else with_parts(getattr(tensor, name), below)
    return type(tensor).__tensor_unflatten__(inner, context, tensor.size(), tensor.stride())


def inner_tensors(tensor: Any, role: str = "") -> dict[str, torch.Tensor]:
    """The tensors inside a wrapper that do not wrap others, by role."""
    found: dict[str, torch.Tensor] = {}
    for name in tensor.__tensor_flatten__()[0]:
        inner, below = getattr(tensor, name), f"{role}.{name}" if role else name
        found |= inner_tensors(inner, below) if is_wrapper(inner) else {below: inner}
    return found


def as_in_torchao_json(tensor: Any, model: Compound) -> Compound:
    """The Compound of a tensor with its class and attributes as torchao's files describe them, by torchao's own code."""
    if not type(tensor).__module__.startswith(f"{TORCHAO}."):
        return model
    try:
        library = import_module("torchao.prototype.safetensors.safetensors_utils")
        described = json.loads(json.dumps(tensor, cls=library.TensorSubclassAttributeJSONEncoder))
    except (ImportError, *_MISFITS):
        return model
    state = recipe_state(described["_data"], model.parts)
    facts = {**model.facts, "class": f"{TORCHAO}:{described['_type']}", "state": state}
    return Compound(WRAPPER, model.dtype, model.shape, model.parts, facts)


def misfit(model: Compound, found: Compound) -> str | None:
    """Return in words why the parts of `found` cannot be copied into those of `model`; None if they can."""
    one, other = model.facts, found.facts
    if one["class"] != other["class"]:
        return f"the model has a {_said(one)} and the checkpoint a {_said(other)}"
    if (model.dtype, model.shape) != (found.dtype, found.shape):
        sizes = [f"{value.dtype} {list(value.shape)}" for value in (model, found)]
        return f"the model has a {_said(one)} of {sizes[0]}, and the checkpoint one of {sizes[1]}"
    if model.parts.keys() != found.parts.keys():
        missing = sorted(model.parts.keys() ^ found.parts.keys())
        return (
            f"its parts are not the same in the model and in the checkpoint: only one of them has {', '.join(missing)}"
        )
    for role, part in model.parts.items():
        kinds = [f"{spec.dtype} {list(spec.shape)}" for spec in (part.spec, found.parts[role].spec)]
        if kinds[0] != kinds[1]:
            return f"its part {role!r} is {kinds[0]} in the model and {kinds[1]} in the checkpoint"
    ours, theirs = _compared(one["state"]), _compared(other["state"])
    if ours != theirs:
        different = sorted(key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key))
        return f"it was made in another way: {', '.join(map(repr, different))} are not the same in the model"
    return None


def _said(facts: Mapping[str, object]) -> str:
    return str(facts["class"]).replace(":", ".")


def _compared(state: Any) -> dict[str, Any]:
    """Return the attributes by name. One that is None may be missing: versions of a library add attributes."""
    parts = state.get("$tuple", [state])
    return {key: value for part in parts if part for key, value in part.items() if value is not None}
