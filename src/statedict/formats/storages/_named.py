"""Input checks for formats that only store named tensors: a flat mapping of names to tensors."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from statedict.state import Compound, Leaf, arguments, few, leaf_of, raw_values, require_in_proportion

from ...errors import SaveError
from .._json import read_json
from .._limits import LIMITS
from ._shape import require_memory

ON_META = (
    "this tensor is on the meta device and has no values: load or materialize it first, or save the state dict that "
    "the library which offloads it gives"
)


def named_leaves(obj: Any, format: str, unfit: Callable[[str, Leaf], str | None]) -> dict[str, Leaf]:
    """Return the leaf of each name. `unfit` returns the reason why the format cannot store a leaf, or None.

    Raises SaveError, which lists the first few problems, if a value is not a strided tensor, or is unfit.
    """
    if not isinstance(obj, Mapping):
        raise SaveError(f"{format} stores a mapping of names to tensors, not {arguments.a(obj)}")
    problems: list[str] = []
    leaves: dict[str, Leaf] = {}
    for name, value in raw_values(obj).items():
        leaf = leaf_of(value)
        problem = _problem(name, value, leaf)
        if isinstance(leaf, Leaf) and problem is None:
            if leaf.storage.location == "meta":
                raise SaveError(f"{name}: {ON_META}")
            require_memory(leaf)
            leaves[name] = leaf
            problem = unfit(name, leaf)
        if problem:
            problems.append(problem)
    if problems:
        listed = few(problems, separator="; ")
        raise SaveError(f"{format} stores named tensors only: {listed}. Use the torch format for other values")
    require_in_proportion(leaves.values())
    return leaves


def _problem(name: object, value: object, leaf: Leaf | Compound | None) -> str | None:
    if not isinstance(name, str):
        return f"{name!r} is not a valid name"
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!r} cannot be written as UTF-8"
    if leaf is None and hasattr(type(value), "__tensor_flatten__"):
        return f"{name!r} is {arguments.a(value)} whose parts and attributes are not plain data"
    if leaf is None:
        dtype = f" of the dtype {value.dtype}" if hasattr(value, "dtype") else ""
        return f"{name!r} is {arguments.a(value)}{dtype}"
    return f"{name!r} is a {leaf.layout} tensor" if isinstance(leaf, Compound) else None


def ties(leaves: Mapping[str, Leaf]) -> list[list[str]]:
    """Return the groups of names whose tensors are the same elements of one storage."""
    groups: dict[object, list[str]] = {}
    for name, leaf in leaves.items():
        if leaf.spec.numel:
            groups.setdefault(leaf.identity, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def modules_of(obj: Any, format: str) -> OrderedDict[str, Any] | None:
    """Return the state's `_metadata`, if it has one; raise SaveError if it cannot be stored as JSON."""
    modules = getattr(obj, "_metadata", None)
    if modules is None:
        return None
    try:
        text = json.dumps(modules)
        found = read_json(text.encode(), format, LIMITS)
        if found == modules and json.dumps(found) == text and all(isinstance(facts, dict) for facts in found.values()):
            return OrderedDict(modules)
    except (TypeError, ValueError, RecursionError):
        pass
    raise SaveError(f"the state's _metadata contains more than text and numbers; {format} cannot store it")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise SaveError if metadata is not a mapping of strings to strings."""
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise SaveError(f"metadata must map strings to strings, but it has {key!r}: {text!r}")
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise SaveError(f"the metadata key or value of {key[:100]!r} cannot be written as UTF-8") from None
