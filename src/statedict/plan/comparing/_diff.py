"""diff: what changed from one state to another, one tensor at a time, in bounded memory.

Names are paired as a load would pair them: equal ones, then those that are equal but for wrappers, which are listed as
renamed. Tensors whose shapes differ are not compared further; those whose dtypes differ are, as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from statedict.state import Compound, Leaf, StateDict, leaf_of, raw_values, require_in_proportion

from ..names._wrappers import pair
from ..operations._facts import Shape, dtype_of, shape_of
from ..reports._json import plain
from ._equal import equal
from ._statistics import Change, compare, is_meta, same

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
        untied, tied: groups of names whose tensors have elements in common in the first state only, and in the second
            only.
        texts: name of a text that was kept with the files → both texts (None where there is none), where they differ.
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
    texts: dict[str, tuple[str | None, str | None]]
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
    require_in_proportion(value for value in (*first.values(), *second.values()) if isinstance(value, (Leaf, Compound)))
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
        texts=_texts(a, b),
        equal=len(both) - len(different),
    )


def _texts(a: Any, b: Any) -> dict[str, tuple[str | None, str | None]]:
    """The texts kept with the files, where they differ; none where a state is not from a file."""
    old, new = getattr(a, "texts", None), getattr(b, "texts", None)
    if old is None or new is None:
        return {}
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _compared(both: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Change], list[str]]:
    """How the elements of tensors differ, and which other values do; each pair of tied tensors is read once."""
    known: dict[Any, Change | None] = {}
    changed: dict[str, Change] = {}
    values: list[str] = []
    for name, (old, new) in both.items():
        a, b = leaf_of(old), leaf_of(new)
        if isinstance(a, Leaf) and isinstance(b, Leaf) and not (is_meta(a) or is_meta(b)):
            key = a.shown, b.shown
            if key not in known:
                known[key] = None if same(a, b) else compare(a, b)
            found = known[key]
            if found:
                changed[name] = found
        elif not equal(old, new):
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
    """The groups of names that are tied, each name as `names` calls it."""
    return {tuple(sorted(names.get(name, name) for name in group)) for group in state.tied}
