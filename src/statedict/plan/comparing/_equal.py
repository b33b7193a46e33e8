"""Compare two values of any kind: tensors by their elements, containers by their content.

The walk is iterative and compares each pair of objects once, so deep, shared and cyclic values take linear time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from statedict.state import Compound, Leaf, Opaque, leaf_of, library_of, raw_values

from ._statistics import same

Pairs = Iterable[tuple[Any, Any]]


def equal(old: Any, new: Any) -> bool:
    """Whether two values are equal. Objects that cannot be compared count as different.

    >>> equal({"a": [1.0, float("nan")]}, {"a": [1.0, float("nan")]}), equal([1], (1,))
    (True, False)
    """
    left: list[Iterator[tuple[Any, Any]]] = [iter([(old, new)])]
    # Pairs that were compared, or are being compared. The reference keeps them alive, so that their ids stay valid.
    seen: dict[tuple[int, int], tuple[Any, Any]] = {}
    while left:
        for pair in left[-1]:
            ids = id(pair[0]), id(pair[1])
            if ids[0] == ids[1] or ids in seen:
                continue
            seen[ids] = pair
            inside = _inside(*pair)
            if inside is None:
                return False
            left.append(iter(inside))
            break
        else:
            left.pop()
    return True


def _inside(old: Any, new: Any) -> Pairs | None:
    """Return the pairs that must be equal for the two values to be equal; None if they differ."""
    a, b = leaf_of(old), leaf_of(new)
    if a is not None or b is not None:
        return _in_tensors(a, b)
    if type(old) is not type(new):
        return None
    if isinstance(old, Opaque):
        return [(getattr(old, part), getattr(new, part)) for part in Opaque.__slots__]
    if isinstance(old, Mapping):
        ours, theirs = raw_values(old), raw_values(new)
        return [(value, theirs[key]) for key, value in ours.items()] if ours.keys() == theirs.keys() else None
    if isinstance(old, (list, tuple, deque)):
        return zip(old, new) if len(old) == len(new) else None
    library = library_of(old)
    if library is not None:
        parts = library.parts(old), library.parts(new)
        return None if None in parts else [parts]
    return () if _says_equal(old, new) else None


def _in_tensors(a: Leaf | Compound | None, b: Leaf | Compound | None) -> Pairs | None:
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        alike = (a.spec.shape, a.spec.dtype) == (b.spec.shape, b.spec.dtype)
        return () if alike and same(a, b) else None
    if isinstance(a, Compound) and isinstance(b, Compound):
        alike = (a.layout, a.shape, a.dtype) == (b.layout, b.shape, b.dtype)
        return [(a.facts, b.facts), (a.parts, b.parts)] if alike else None
    return None


def _says_equal(old: Any, new: Any) -> bool:
    try:
        return bool(old == new or (old != old and new != new))
    except (TypeError, ValueError, RuntimeError):
        return False
