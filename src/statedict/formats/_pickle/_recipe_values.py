"""Values from the recipe of a tensor that wraps others: the counterpart of `_recipe`.

A recipe from a file is checked completely before anything is made of it, and what is made is inert data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from statedict.state import DTYPES, Compound, DType, Leaf, Opaque, Traits

from ._recipe import (
    DEVICE,
    LARGEST,
    MOST,
    PARAMETER,
    PLAIN_TYPES,
    WRAPPER,
    RecipeError,
    check_attributes,
    check_constant,
    check_name,
    recipe_of,
)
from ._values import Kind, Size, TorchConstant

_CONSTANTS = ("device", "layout", "memory_format", "qscheme")


def compound_from(recipe: Any, parts: Mapping[str, Leaf]) -> Compound:
    """Return the Compound of a recipe as JSON and its parts, by role; partner of `recipe_of`.

    Raises RecipeError if the recipe is malformed, or does not use each part once.
    """
    used: list[str] = []
    _call(recipe, "cpu", used.append)
    if sorted(used) != sorted(parts):
        raise RecipeError("its recipe does not use each of its parts once")
    traits = Traits(parameter=recipe["parameter"], requires_grad=recipe["requires_grad"])
    facts = {key: recipe[key] for key in ("class", "strides", "offset", "layout", "state")}
    return Compound(WRAPPER, DTYPES[recipe["dtype"]], tuple(recipe["shape"]), parts, facts, traits)


def rebuilding(value: Compound, parts: Mapping[str, Any], device: str) -> Opaque:
    """Return the call by which torch.save writes a tensor, as inert data with `parts` (leaves or tensors) inside."""
    return _call(recipe_of(value), device if DEVICE.match(device) else "cpu", parts.__getitem__)


def _call(recipe: Any, device: str, part: Callable[[str], Any]) -> Opaque:
    _check_fields(recipe)
    kind = _named(recipe["class"])
    shape, strides = tuple(recipe["shape"]), tuple(recipe["strides"])
    outer = (kind, DTYPES[recipe["dtype"]], shape, strides, recipe["offset"], _constant("layout", recipe["layout"]))
    args = (*outer, TorchConstant("device", device), recipe["requires_grad"])
    state = _state(recipe["state"], part, device)
    check_attributes(state)
    if recipe["parameter"]:
        first, *rest = state if type(state) is tuple else (state,)
        marked = {**(first or {}), PARAMETER: True}
        state = (marked, *rest) if type(state) is tuple else marked
    function = Opaque("torch._utils", "_rebuild_wrapper_subclass")
    return Opaque("torch._tensor", "_rebuild_from_type_v2", (function, kind, args, state))


def _check_fields(recipe: Any) -> None:
    if type(recipe) is not dict or recipe.keys() != _KEYS.keys():
        raise RecipeError("its recipe does not have the expected fields")
    for key, fits in _KEYS.items():
        if not fits(recipe[key]):
            raise RecipeError(f"the field {key!r} of its recipe is not valid")
    if len(recipe["shape"]) != len(recipe["strides"]):
        raise RecipeError("its shape and strides have different lengths")


def _state(value: Any, part: Callable[[str], Any], device: str) -> Any:
    """Return the inert value that a part of a recipe describes; raises RecipeError if it is malformed."""
    if type(value) in PLAIN_TYPES or type(value) in (str, int, float):
        return value
    if type(value) is list:
        return [_state(item, part, device) for item in value]
    if type(value) is not dict:
        raise RecipeError("its recipe contains a value of an unexpected type")
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: _state(item, part, device) for key, item in value.items()}
    if tag == "$object":
        return _made(value, part, device)
    if len(value) != 1 or tag not in _GIVE:
        raise RecipeError(f"its recipe contains {tag[:100]!r} where that is not expected")
    return _GIVE[tag](value[tag], part, device)


def _made(value: dict[str, Any], part: Callable[[str], Any], device: str) -> Opaque:
    args, new = value.get("args"), value.get("new")
    if not value.keys() <= {"$object", "args", "new", "state"} or type(args) is not list or type(new) is not bool:
        raise RecipeError("its recipe contains a malformed object")
    named = _named(value["$object"])
    made = Opaque(named.module, named.name, tuple(_state(each, part, device) for each in args), new=new)
    made.state = _state(value.get("state"), part, device)
    return made


def _named(text: Any) -> Opaque:
    check_name(text)
    module, _, name = text.partition(":")
    return Opaque(module, name)


def _constant(kind: str, name: Any) -> TorchConstant:
    if type(name) is not str:
        raise RecipeError(f"its recipe contains a malformed {kind}")
    made = TorchConstant(cast(Kind, kind), name)
    check_constant(made)
    return made


def _listed(value: Any) -> list[Any]:
    if type(value) is not list:
        raise RecipeError("its recipe contains a malformed sequence")
    return value


def _pairs(value: Any, part: Callable[[str], Any], device: str) -> dict[Any, Any]:
    if len(_listed(value)) > MOST:
        raise RecipeError("its recipe contains too large a mapping")
    try:
        return dict(_state(pair, part, device) for pair in value)
    except (TypeError, ValueError):
        raise RecipeError("its recipe contains a malformed mapping") from None


def _sizes(value: Any) -> bool:
    return type(value) is list and len(value) <= 64 and all(type(n) is int and 0 <= n < LARGEST for n in value)


def _size(value: Any, part: Callable[[str], Any], device: str) -> Size:
    if not _sizes(value):
        raise RecipeError("its recipe contains a size that is not valid")
    return Size(value)


def _number(value: Any, part: Callable[[str], Any], device: str) -> float:
    if value not in ("nan", "inf", "-inf"):
        raise RecipeError("its recipe contains a number that is not valid")
    return float(value)


def _dtype(value: Any, part: Callable[[str], Any], device: str) -> DType:
    if type(value) is not str or value not in DTYPES:
        raise RecipeError("its recipe contains a dtype that is not known")
    return DTYPES[value]


def _part(value: Any, part: Callable[[str], Any], device: str) -> Any:
    if type(value) is not str:
        raise RecipeError("the name of a part is not text")
    return part(value)


_GIVE: dict[str, Callable[[Any, Callable[[str], Any], str], Any]] = {
    "$part": _part,
    "$wrapper": lambda value, part, device: _call(value, device, part),
    "$tuple": lambda value, part, device: tuple(_state(each, part, device) for each in _listed(value)),
    "$size": _size,
    "$dict": _pairs,
    "$float": _number,
    "$dtype": _dtype,
    "$name": lambda value, part, device: _named(value),
    **{f"${kind}": lambda value, part, device, kind=kind: _constant(kind, value) for kind in _CONSTANTS},  # type: ignore[misc]
}


def _is_text(value: Any) -> bool:
    return type(value) is str


_KEYS: dict[str, Callable[[Any], bool]] = {
    "class": _is_text,
    "dtype": lambda value: type(value) is str and value in DTYPES,
    "shape": _sizes,
    "strides": _sizes,
    "offset": lambda value: _sizes([value]),
    "layout": _is_text,
    "requires_grad": lambda value: type(value) is bool,
    "parameter": lambda value: type(value) is bool,
    "state": lambda value: type(value) is dict,
}
