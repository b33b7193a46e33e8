"""The recipe of a tensor that wraps others (`__tensor_flatten__`), as plain values.

torch.save writes such a tensor as a call of `_rebuild_wrapper_subclass` with the name of its class and the outer shape,
and its attributes, some of which are tensors. As a `Compound` of layout `"wrapper"`, the tensors are its parts, named by
the attributes; the recipe is the rest, in its facts:

    class      "module:qualified name"; only a text, nothing is imported
    strides    of the outer tensor
    offset     of the outer tensor
    layout     of the outer tensor
    state      its attributes

The state is plain data that JSON can hold, so that it can be compared, printed and written into the metadata of a
safetensors file. Values that JSON does not have are objects with one of these keys:

    {"$part": role}                   the tensor that is this part
    {"$wrapper": recipe}              an inner tensor that wraps others: its recipe with `dtype`, `shape`, `requires_grad`
    {"$tuple": […]}, {"$size": […]}   a tuple, a torch.Size
    {"$dict": [[key, value], …]}      a dict that an object cannot express
    {"$float": "nan"}                 a number that JSON does not have
    {"$dtype": "int8"}, {"$device": "cpu"}, {"$layout": "strided"}, {"$memory_format": …}, {"$qscheme": …}
    {"$name": "module:name"}          a class or function
    {"$object": "module:name", "args": […], "new": bool, "state": …}    a call of it (an enum, a dataclass)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn

from statedict.state import Compound, DType, Leaf, Opaque, Traits

from ._names import TORCH_CONSTANTS, is_attribute
from ._values import Size, TorchConstant

WRAPPER = "wrapper"
# Recipes of real classes have about twenty values, nested four deep.
DEEPEST = 32
MOST = 10_000
VALUE_BYTES = 128
# Integers of at most 64 bits, with or without a sign.
LARGEST = 1 << 63
PLAIN_TYPES: frozenset[type] = frozenset({type(None), bool})
LONGEST_NAME = 2_048
DEVICE = re.compile(r"[a-z][a-z0-9_]{0,31}(:[0-9]{1,5})?\Z")
PARAMETER = "_is_param"


class RecipeError(Exception):
    """A value cannot be part of a recipe, or a recipe is malformed. Caught where tensors are read or written."""


def unknown(value: Any) -> NoReturn:
    """Refuse a value that is not inert data."""
    raise RecipeError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be described as plain data")


# values → recipe


def take_apart(
    name: str,
    outer: tuple[DType, tuple[int, ...], tuple[int, ...], int, str],
    requires_grad: bool,
    state: Any,
    inert: Callable[[Any], Any] = unknown,
    charge: Callable[[int], object] = lambda nbytes: None,
) -> Compound:
    """Return the Compound of a tensor of the class `name` (`module:qualified name`).

    `outer` is its dtype, shape, strides, offset and layout; `state` its attributes, as torch.save writes them. `inert`
    returns a live value's counterpart among the inert values: a leaf, a constant, an Opaque with live values inside.
    `charge` is called with the bytes that each value of the recipe takes.
    Raises RecipeError if the state contains something else.
    """
    dtype, shape, strides, offset, layout = outer
    check_name(name)
    check_constant(TorchConstant("layout", layout))
    taking = _Taking(inert, charge)
    attributes = state[0] if type(state) is tuple and state else state
    is_parameter = type(attributes) is dict and attributes.get(PARAMETER) is True
    facts: dict[str, object] = {"class": name, "strides": list(strides), "offset": offset, "layout": layout}
    facts["state"] = taking.attributes(_without_flag(state) if is_parameter else state)
    if not taking.parts:
        raise RecipeError("it has no tensors inside")
    traits = Traits(parameter=is_parameter, requires_grad=requires_grad)
    return Compound(WRAPPER, dtype, shape, taking.parts, facts, traits)


def _without_flag(state: Any) -> Any:
    """Return the attributes without the flag by which PyTorch marks a parameter of such a class."""
    if type(state) is tuple:
        return (_without_flag(state[0]), *state[1:])
    return {key: value for key, value in state.items() if key != PARAMETER}


class _Taking:
    """Converts the attributes of one tensor, collecting the tensors among them."""

    def __init__(self, inert: Callable[[Any], Any], charge: Callable[[int], object]) -> None:
        self.parts: dict[str, Leaf] = {}
        self.inert = inert
        self.charge = charge
        self.left = MOST

    def attributes(self, state: Any) -> Any:
        """Convert a `__dict__`, or the pair of a `__dict__` and the values of `__slots__`; roles are attribute names."""
        check_attributes(state)
        if type(state) is tuple:
            return {"$tuple": [self.value(part, "", 0) for part in state]}
        return self.value(state, "", 0)

    def value(self, value: Any, role: str, depth: int) -> Any:
        kind = type(value)
        self.left -= 1
        self.charge(VALUE_BYTES)
        if depth > DEEPEST or self.left < 0:
            raise RecipeError("its attributes are nested too deeply, or too many")
        if kind in PLAIN_TYPES:
            return value
        take = _TAKE.get(kind)
        if take is not None:
            return take(self, value, role, depth)
        known = self.inert(value)
        if type(known) not in _TAKE:
            unknown(value)
        return _TAKE[type(known)](self, known, role, depth)

    def part(self, leaf: Leaf, role: str) -> Any:
        if role in self.parts:
            raise RecipeError(f"two of its tensors would be named {role!r}")
        self.parts[role] = leaf
        return {"$part": role}

    def items(self, values: Any, role: str, depth: int) -> list[Any]:
        return [self.value(value, _below(role, number), depth + 1) for number, value in enumerate(values)]

    def mapping(self, value: dict[Any, Any], role: str, depth: int) -> Any:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {
                _text(self, key, role, depth): self.value(part, _below(role, key), depth + 1)
                for key, part in value.items()
            }
        pairs = [
            [self.value(key, _below(role, "key"), depth + 1), self.value(part, _below(role, key), depth + 1)]
            for key, part in value.items()
        ]
        return {"$dict": pairs}

    def wrapper(self, value: Compound, role: str, depth: int) -> Any:
        if value.layout != WRAPPER:
            raise RecipeError(f"one of its parts is a {value.layout} tensor")
        names = {inner: _below(role, inner) for inner in value.parts}
        for inner, leaf in value.parts.items():
            self.part(leaf, names[inner])
        return {"$wrapper": recipe_of(value, names)}

    def object(self, value: Opaque, role: str, depth: int) -> Any:
        name = f"{value.module}:{value.name}"
        check_name(name)
        if value.args is None:
            return {"$name": name}
        if value.kwargs or value.items:
            raise RecipeError(f"a {value.path} cannot be described as plain data")
        made = {"$object": name, "args": self.items(value.args, role, depth), "new": value.new}
        return made if value.state is None else {**made, "state": self.value(value.state, role, depth + 1)}


def check_attributes(state: Any) -> None:
    """Raise RecipeError unless it is a `__dict__`, or the pair of a `__dict__` and the values of `__slots__`."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    for part in parts:
        if part is None and len(parts) == 2:
            continue
        if type(part) is not dict:
            raise RecipeError("its state is not a dict of attributes")
        for name in part:
            if not is_attribute(name):
                raise RecipeError(f"its attribute {str(name)[:100]!r} is reserved by torch.Tensor")


def check_name(text: object) -> None:
    """Raise RecipeError unless it is the name of a class or function, as `module:qualified name`."""
    parts = text.split(":") if isinstance(text, str) and text.isprintable() and len(text) <= LONGEST_NAME else []
    if len(parts) != 2 or not all(parts):
        raise RecipeError("it names a class whose name is not valid")


def check_constant(value: TorchConstant) -> None:
    """Raise RecipeError unless PyTorch has a constant of this name."""
    is_known = DEVICE.match(value.name) if value.kind == "device" else TORCH_CONSTANTS.get(value.name) == value
    if not is_known:
        raise RecipeError(f"it has a {value.kind} that PyTorch does not have")


def _below(role: str, key: Any) -> str:
    return f"{role}.{key}" if role else str(key)


def _integer(taking: _Taking, value: int, role: str, depth: int) -> int:
    if abs(value) > LARGEST:
        raise RecipeError("one of its attributes is an integer of more than 64 bits")
    return value


def _text(taking: _Taking, value: str, role: str, depth: int) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RecipeError("one of its attributes is text that cannot be written as UTF-8") from None
    return value


def _constant(taking: _Taking, value: TorchConstant, role: str, depth: int) -> Any:
    check_constant(value)
    return {f"${value.kind}": value.name}


def _float(taking: _Taking, value: float, role: str, depth: int) -> Any:
    return value if isfinite(value) else {"$float": repr(value)}


_TAKE: dict[type, Callable[[_Taking, Any, str, int], Any]] = {
    str: _text,
    int: _integer,
    float: _float,
    list: _Taking.items,
    tuple: lambda taking, value, role, depth: {"$tuple": taking.items(value, role, depth)},
    Size: lambda taking, value, role, depth: {"$size": list(value)},
    dict: _Taking.mapping,
    DType: lambda taking, value, role, depth: {"$dtype": value.name},
    TorchConstant: _constant,
    Leaf: lambda taking, value, role, depth: taking.part(value, role),
    Compound: _Taking.wrapper,
    Opaque: _Taking.object,
}


def recipe_of(value: Compound, roles: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the recipe as one JSON object; `roles` renames the parts."""
    facts: dict[str, Any] = {"dtype": value.dtype.name, "shape": list(value.shape), **value.facts}
    facts |= {"requires_grad": value.traits.requires_grad, "parameter": value.traits.parameter}
    return facts if roles is None else {**facts, "state": _renamed(facts["state"], roles)}


def _renamed(value: Any, roles: Mapping[str, str]) -> Any:
    if type(value) is list:
        return [_renamed(part, roles) for part in value]
    if type(value) is not dict:
        return value
    return {key: roles[part] if key == "$part" else _renamed(part, roles) for key, part in value.items()}


def roles_of(recipe: Any) -> list[str]:
    """Return the roles that a recipe refers to; an empty list if it is malformed."""
    return _texts(recipe, ("$part",))


def classes_of(value: Compound) -> set[str]:
    """Return the paths of the classes and functions that a recipe names."""
    return {text.replace(":", ".") for text in _texts(value.facts, ("class", "$name", "$object"))}


def _texts(recipe: Any, keys: tuple[str, ...]) -> list[str]:
    """Return the texts under these keys anywhere in a recipe."""
    found: list[str] = []
    stack = [recipe]
    while stack:
        value = stack.pop()
        if type(value) is dict:
            found += [text for key, text in value.items() if key in keys and type(text) is str]
            stack += reversed(value.values())
        elif type(value) is list:
            stack += reversed(value)
    return found
