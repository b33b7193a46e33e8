"""What formats that hold nothing but named tensors take: a flat mapping of names to tensors."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from statedict.state import Compound, Leaf, leaf_of, raw_values, require_in_proportion

from ...errors import SaveError
from .._json import read_json
from .._limits import LIMITS
from ._shape import require_memory

ON_META = (
    "this tensor is on the meta device, so its values are not here: load or materialize it first, or save the state that "
    "the library which offloads it gives"
)


def named_leaves(obj: Any, format: str, unfit: Callable[[str, Leaf], str | None]) -> dict[str, Leaf]:
    """The leaf of each name. `unfit` says why the format cannot hold a leaf, if so.

    Raises SaveError, which lists the first few, where any value is no strided tensor, or one that is unfit.
    """
    if not isinstance(obj, Mapping):
        raise SaveError(f"{format} holds a mapping of names to tensors, not a {type(obj).__name__}")
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
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise SaveError(
            f"{format} holds named tensors only: {'; '.join(problems[:5])}{more}. The torch format holds anything"
        )
    require_in_proportion(leaves.values())
    return leaves


def _problem(name: object, value: object, leaf: Leaf | Compound | None) -> str | None:
    if not isinstance(name, str):
        return f"{name!r} is no name"
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!r} cannot be written as UTF-8"
    if leaf is None:
        return f"{name!r} is a {type(value).__name__}"
    return f"{name!r} is a {leaf.layout} tensor" if isinstance(leaf, Compound) else None


def ties(leaves: Mapping[str, Leaf]) -> list[list[str]]:
    """Groups of names whose tensors are the same elements of one storage."""
    groups: dict[object, list[str]] = {}
    for name, leaf in leaves.items():
        if leaf.spec.numel:
            groups.setdefault(leaf.shown, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def modules_of(obj: Any, format: str) -> OrderedDict[str, Any] | None:
    """The state's `_metadata`, if it has one; raises SaveError where JSON cannot hold it."""
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
    raise SaveError(f"the state's _metadata holds more than text and numbers; {format} cannot hold it")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse metadata that is not text by text."""
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise SaveError(f"metadata maps text to text; {key!r}: {text!r} does not fit")
        try:
            (key + text).encode()
        except UnicodeEncodeError:
            raise SaveError(f"the metadata {key[:100]!r} cannot be written as UTF-8") from None
