"""diff: what changed from one state to another, one tensor at a time, in bounded memory.

Names are paired as a load would pair them: equal ones, then those that are equal but for wrappers, which are listed as
renamed. Tensors whose shapes differ are not compared further; those whose dtypes differ are, as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from statedict.state import Compound, Leaf, Opaque, StateDict, leaf_of, raw_values

from ._facts import Shape, dtype_of, shape_of
from ._plain import plain
from ._statistics import Change, compare, same
from ._wrappers import pair

Ties = tuple[tuple[str, ...], ...]


class Diff(NamedTuple):
    """What changed; true where anything did. Names are the second state's, but for `removed`.

    Attributes:
        added, removed: names that only the second or only the first state has, with their shape (None for no tensor).
        renamed: first name → second, where they differ in wrappers.
        shape: name → both shapes, where they differ.
        dtype: name → both dtypes, where they differ.
        changed: name → how the elements differ, where they do.
        values: names whose values are no tensors, or only one is, or of another layout, and differ.
        untied, tied: groups of names that share one tensor in the first state only, and in the second only.
        equal: how many entries are the same.
    """

    added: dict[str, Shape | None]
    removed: dict[str, Shape | None]
    renamed: dict[str, str]
    shape: dict[str, tuple[Shape, Shape]]
    dtype: dict[str, tuple[str, str]]
    changed: dict[str, Change]
    values: tuple[str, ...]
    untied: Ties
    tied: Ties
    equal: int

    def __bool__(self) -> bool:
        return any(self[:-1])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {"same": not self, **plain(self)}

    def __str__(self) -> str:
        from ._diff_text import diff_text

        return diff_text(self)

    def _repr_html_(self) -> str:
        from ._diff_text import diff_html

        return diff_html(self)


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> Diff:
    """What changed from `a` to `b`. Tensors are read one at a time, in pieces, and only as far as they tell something.

    Raises CollisionError where two names of one state are one name of the other without their wrappers.

    >>> import numpy as np
    >>> print(diff({"w": np.zeros(4), "x": np.ones(1)}, {"w": np.array([0, 0, 0, 0.5]), "y": np.ones(1)}))
    1 added; 1 removed; 1 changed; 0 equal
    added 1:
      y  [1]
    removed 1:
      x  [1]
    changed 1:
      w  1 of 4 elements, by up to 0.5, relative inf, cosine 0
    """
    first, second = raw_values(a), raw_values(b)
    pairs, _, own = pair(first, second)
    filled = set(pairs.values())
    both = {name: (first[old], second[name]) for old, name in pairs.items()}
    shape = {name: shapes for name, values in both.items() if (shapes := _shapes(*values))}
    changed, values = _compared({name: values for name, values in both.items() if name not in shape})
    dtype = {name: dtypes for name, values in both.items() if (dtypes := _dtypes(*values))}
    tied = [_ties(StateDict(first), pairs), _ties(StateDict(second), {})]
    different = {*shape, *dtype, *changed, *values}
    return Diff(
        added={name: shape_of(second[name]) for name in second if not (name in filled or name in own)},
        removed={name: shape_of(first[name]) for name in first if not (name in pairs or name in own)},
        renamed={old: name for old, name in pairs.items() if old != name},
        shape=shape,
        dtype=dtype,
        changed=changed,
        values=tuple(values),
        untied=tuple(group for group in tied[0] if group not in tied[1] and filled.issuperset(group)),
        tied=tuple(group for group in tied[1] if group not in tied[0] and filled.issuperset(group)),
        equal=len(both) - len(different),
    )


def _compared(both: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Change], list[str]]:
    """How the elements of tensors differ, and which other values do; each pair of tied tensors is read once."""
    known: dict[Any, Change | None] = {}
    changed: dict[str, Change] = {}
    values: list[str] = []
    for name, (old, new) in both.items():
        a, b = leaf_of(old), leaf_of(new)
        if isinstance(a, Leaf) and isinstance(b, Leaf):
            key = (a.storage.key, a.spec, a.traits[2:4], b.storage.key, b.spec, b.traits[2:4])
            if key not in known:
                known[key] = None if same(a, b) else compare(a, b)
            found = known[key]
            if found:
                changed[name] = found
        elif not _equal(old, new):
            values.append(name)
    return changed, values


def _shapes(old: Any, new: Any) -> tuple[Shape, Shape] | None:
    """Both shapes, where they differ."""
    a, b = shape_of(old), shape_of(new)
    return None if a is None or b is None or a == b else (a, b)


def _dtypes(old: Any, new: Any) -> tuple[str, str] | None:
    """Both element types, where they differ."""
    a, b = dtype_of(old), dtype_of(new)
    return None if a is None or b is None or a is b else (a.name, b.name)


def _ties(state: StateDict, names: Mapping[str, str]) -> set[tuple[str, ...]]:
    """The groups of names that share a storage, each name as `names` calls it."""
    return {tuple(sorted(names.get(name, name) for name in group)) for group in state.tied}


def _equal(old: Any, new: Any) -> bool:
    """Whether two values are equal, whatever they are made of: tensors by their elements, Opaque values by their parts."""
    a, b = leaf_of(old), leaf_of(new)
    if a is not None and b is not None:
        return _equal_tensors(a, b)
    if type(old) is not type(new):
        return False
    if isinstance(old, Opaque):
        return all(_equal(getattr(old, part), getattr(new, part)) for part in Opaque.__slots__)
    if isinstance(old, Mapping):
        return old.keys() == new.keys() and all(_equal(value, new[key]) for key, value in old.items())
    if isinstance(old, (list, tuple)):
        return len(old) == len(new) and all(map(_equal, old, new))
    try:
        return bool(old == new or (old != old and new != new))
    except (TypeError, ValueError, RuntimeError):  # an object that cannot say is not known to be equal
        return False


def _equal_tensors(a: Leaf | Compound, b: Leaf | Compound) -> bool:
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return a.spec.shape == b.spec.shape and same(a, b)
    if not isinstance(a, Compound) or not isinstance(b, Compound):
        return False
    facts = (a.layout, a.shape, a.dtype, a.facts) == (b.layout, b.shape, b.dtype, b.facts)
    return facts and _equal(a.parts, b.parts)
