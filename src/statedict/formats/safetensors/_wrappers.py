"""Tensors that wrap others in a safetensors file: each part is a tensor named `weight.part`; the recipes are metadata.

Any reader sees the parts under these names. Our own reader puts them together into Compounds, if the header is as we wrote
it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from statedict.state import Compound, Leaf, leaf_of, raw_values

from ...errors import FormatError, SaveError
from .._pickle._recipe import WRAPPER, RecipeError, recipe_of, roles_of
from .._pickle._recipe_values import compound_from

Recipes = dict[str, dict[str, Any]]


def taken_apart(obj: Any) -> tuple[Any, Recipes]:
    """Return a mapping with the parts in place of each tensor that wraps others, and the recipes by name.

    Raises SaveError if a part would have the name of another tensor.
    """
    if not isinstance(obj, Mapping) or not any(map(_may_wrap, set(map(type, raw_values(obj).values())))):
        return obj, {}
    values: dict[Any, Any] = {}
    recipes: Recipes = {}
    for name, value in raw_values(obj).items():
        wrapper = _wrapper(value) if isinstance(name, str) else None
        entries: Mapping[Any, Any] = {name: value}
        if wrapper is not None:
            entries = dict(zip(stored_names(name, wrapper), wrapper.parts.values()))
            recipes[name] = recipe_of(wrapper)
        for each in entries.keys() & values.keys():
            raise SaveError(f"{each!r} is both a tensor and a part of another: rename one of them")
        values.update(entries)
    return values, recipes


def stored_names(name: str, value: Any) -> list[str]:
    """Return the names under which a value is stored: its own, or those of the parts of a tensor that wraps others."""
    wrapper = _wrapper(value)
    return [name] if wrapper is None else [f"{name}.{role}" for role in wrapper.parts]


def _wrapper(value: Any) -> Compound | None:
    leaf = leaf_of(value) if _may_wrap(type(value)) else None
    return leaf if isinstance(leaf, Compound) and leaf.layout == WRAPPER else None


def _may_wrap(kind: type) -> bool:
    return kind is Compound or hasattr(kind, "__tensor_flatten__")


def put_together(state: dict[str, Any], recipes: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Return the state with Compounds in place of their parts; raise FormatError if a recipe does not fit its parts."""
    owners: dict[str, tuple[str, str]] = {}
    for name, recipe in recipes.items():
        for role in roles_of(recipe):
            if f"{name}.{role}" not in state:
                raise FormatError(f"the part {role!r} of this tensor is missing", file=file, member=name)
            if owners.setdefault(f"{name}.{role}", (name, role)) != (name, role):
                raise FormatError(f"the part {role!r} belongs to two tensors", file=file, member=name)
    made = {name: _compound(name, recipe, state, file) for name, recipe in recipes.items()}
    values: dict[str, Any] = OrderedDict()
    for name, value in state.items():
        owner = owners[name][0] if name in owners else name
        values.setdefault(owner, made[owner] if name in owners else value)
    for name in recipes:
        if name in state or not isinstance(values.get(name), Compound):
            raise FormatError("a tensor and the recipe of another have this name", file=file, member=name)
    return values


def _compound(name: str, recipe: Any, state: Mapping[str, Leaf], file: str) -> Compound:
    parts = {role: state[f"{name}.{role}"] for role in roles_of(recipe)}
    try:
        return compound_from(recipe, parts)
    except RecipeError as error:
        raise FormatError(f"the tensor is described wrongly: {error}", file=file, member=name) from error
