"""Plain values: those that JSON, and so a manifest, preserves exactly.

JSON has neither NaN nor infinity: they are written as {"float": "nan"}, {"float": "inf"} and {"float": "-inf"}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

# Deeper values are not plain: whether they can be read back must not depend on the depth of the caller's stack.
DEEPEST = 50
# Longer values (in characters of JSON) are saved in a file of their own, because manifests are read often.
LONGEST = 64 << 10
_NOT_FINITE = {"nan", "inf", "-inf"}


def survives(value: Any) -> bool:
    """Whether JSON preserves the value exactly (a tuple would become a list, a key 1 would become "1")."""
    try:
        text = json.dumps(to_json(value), allow_nan=False)
        return len(text) <= LONGEST and _same(from_json(json.loads(text)), value)
    except (TypeError, ValueError, RecursionError):
        return False


def to_json(value: Any, depth: int = 0) -> Any:
    """Convert a value to strict JSON. Partner of `from_json`. Raises ValueError for one that is nested too deep."""
    _check_depth(depth)
    if isinstance(value, float) and not isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {key: to_json(part, depth + 1) for key, part in value.items()}
    return [to_json(part, depth + 1) for part in value] if isinstance(value, (list, tuple)) else value


def from_json(value: Any, depth: int = 0) -> Any:
    """Convert back what `to_json` returned. Raises ValueError for a value that is nested too deep."""
    _check_depth(depth)
    if isinstance(value, dict):
        if value.keys() == {"float"} and isinstance(value["float"], str) and value["float"] in _NOT_FINITE:
            return float(value["float"])
        return {key: from_json(part, depth + 1) for key, part in value.items()}
    return [from_json(part, depth + 1) for part in value] if isinstance(value, list) else value


def _check_depth(depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"values are nested more than {DEEPEST} levels deep")


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return (
            list(map(type, a)) == list(map(type, b)) and list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
        )
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)
