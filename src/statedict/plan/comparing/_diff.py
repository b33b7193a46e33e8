"""Compare two states, one tensor at a time, in bounded memory.

Names are paired as in a load: equal names, then names that are equal without wrappers, which are listed as renamed. Tensors
of different shapes are not compared further; tensors of different dtypes are compared as numbers.
Other values are compared by their content. That walk is iterative and compares each pair of objects once, so deep, shared
and cyclic values take linear time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from statedict.errors import PartError
from statedict.state import (
    Compound,
    Leaf,
    Opaque,
    Section,
    StateDict,
    as_html,
    as_text,
    folded,
    leaf_of,
    library_of,
    listed,
    raw_values,
    require_in_proportion,
)

from ..names._generalise import folded_pairs
from ..names._wrappers import pair
from ..operations._specs import Shape, dtype_of, shape_of
from ..reports._report import plain
from ._statistics import Change, compare, is_meta, same

Ties = tuple[tuple[str, ...], ...]


class Diff(NamedTuple):
    """The differences between two states; true if there are any. Names are those of the second state, except in `removed`.

    Attributes:
        added, removed: names that only the second, or only the first state has, with their shape (None: not a tensor).
        renamed: first name → second name, for names that differ in wrappers.
        shape: name → both shapes, if they differ.
        dtype: name → both dtypes, if they differ.
        changed: name → how the elements differ.
        values: names of other values that differ, or of which only one is a tensor, or whose layouts differ.
        untied, tied: groups of names whose tensors share elements in the first state only, and in the second only.
        texts: key in the metadata of the files → both texts (None: missing), if they differ.
        equal: the number of equal entries.

    >>> import numpy as np, statedict
    >>> found = statedict.diff({"w": np.zeros(2), "old": np.ones(1)}, {"w": np.zeros(3), "new": np.ones(1)})
    >>> found.shape, list(found.added), list(found.removed)
    ({'w': ((2,), (3,))}, ['new'], ['old'])
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
        """Return all fields as plain values, for JSON."""
        return {"same": not self, **plain(self)}

    def __str__(self) -> str:
        return as_text(_counts(self), _sections(self))

    def __repr__(self) -> str:
        return f"<Diff: {_counts(self)}>"

    def _repr_html_(self) -> str:
        return as_html(_counts(self), _sections(self))


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> Diff:
    """Compare two states. Tensors are read one at a time, in pieces, and only if it is necessary.

    Raises CollisionError if two names of one state correspond to one name of the other.

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
    """Return the metadata texts of the files that differ; empty if a state is not from a file."""
    old, new = getattr(a, "texts", None), getattr(b, "texts", None)
    if old is None or new is None:
        return {}
    return {name: (old.get(name), new.get(name)) for name in {**old, **new} if old.get(name) != new.get(name)}


def _compared(both: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Change], list[str]]:
    """Return how the elements of tensors differ, and which other values differ; reads each pair of tied tensors once."""
    known: dict[Any, Change | None] = {}
    changed: dict[str, Change] = {}
    values: list[str] = []
    for name, (old, new) in both.items():
        a, b = leaf_of(old), leaf_of(new)
        if isinstance(a, Leaf) and isinstance(b, Leaf) and not (is_meta(a) or is_meta(b)):
            key = a.identity, b.identity
            if key not in known:
                known[key] = _compared_whole(name, a, b)
            found = known[key]
            if found:
                changed[name] = found
        elif not equal(old, new):
            values.append(name)
    return changed, values


def _compared_whole(name: str, a: Leaf, b: Leaf) -> Change | None:
    try:
        return compare(a, b)
    except PartError as error:
        needed = "the two states are divided in different ways: save both, and compare the files"
        raise PartError(error.shape, error.placement, error.here, needed, error.where or name) from error


def _shapes(old: Any, new: Any) -> tuple[Shape, Shape] | None:
    """Return both shapes if they differ."""
    a, b = shape_of(old), shape_of(new)
    return None if a is None or b is None or a == b else (a, b)


def _dtypes(old: Any, new: Any) -> tuple[str, str] | None:
    """Return both dtypes if they differ."""
    a, b = dtype_of(old), dtype_of(new)
    return None if a is None or b is None or a is b else (a.name, b.name)


def _ties(state: StateDict, names: Mapping[str, str]) -> set[tuple[str, ...]]:
    """Return the groups of tied names, each name translated by `names`."""
    return {tuple(sorted(names.get(name, name) for name in group)) for group in state.tied}


_LINES = 20
_FEW = 5
# The name of a field of a Diff in the counts, if it differs from the field's own.
_WORDS = {
    "shape": "reshaped",
    "dtype": "with another dtype",
    "values": "other values changed",
    "texts": "texts changed",
}


def _counts(diff: Diff) -> str:
    found = {field: len(value) for field, value in diff._asdict().items() if field != "equal" and value}
    counts = (f"{count:,} {_WORDS.get(field, field)}" for field, count in found.items())
    return "; ".join([*counts, f"{diff.equal:,} equal"])


def _sections(diff: Diff) -> list[Section]:
    return [
        _names("added", diff.added),
        _names("removed", diff.removed),
        listed("renamed", folded_pairs(diff.renamed.items()), _FEW),
        _both("reshaped", {name: (list(a), list(b)) for name, (a, b) in diff.shape.items()}),
        _both("dtype", diff.dtype),
        folded("changed", diff.changed, lambda names: _change(diff, names), lambda name: None, _LINES),
        listed("other values", diff.values, _FEW),
        listed("no longer tied", map(" = ".join, diff.untied), _FEW),
        listed("newly tied", map(" = ".join, diff.tied), _FEW),
        listed(
            "metadata texts of the files", (f"{n}: {_short(a)} → {_short(b)}" for n, (a, b) in diff.texts.items()), _FEW
        ),
    ]


def _short(text: str | None) -> str:
    return "missing" if text is None else repr(text[:40]) + ("…" if len(text) > 40 else "")


def _names(title: str, some: dict[str, Shape | None]) -> Section:
    return folded(title, some, lambda names: "" if (s := some[names[0]]) is None else str(list(s)), some.get, _FEW)


def _both(title: str, some: Mapping[str, tuple[object, object]]) -> Section:
    texts = {name: f"{old} → {new}" for name, (old, new) in some.items()}
    return folded(title, texts, lambda names: texts[names[0]], texts.get, _FEW)


def _change(diff: Diff, names: tuple[str, ...]) -> str:
    """Return how the elements of all these tensors differ: totals, and the worst values."""
    some = [diff.changed[name] for name in names]
    changed, elements = sum(one.changed for one in some), sum(one.elements for one in some)
    worst = max(one.max_abs for one in some), max(one.relative for one in some), min(one.cosine for one in some)
    text = (
        f"{changed:,} of {elements:,} elements, by up to {worst[0]:.3g}, relative {worst[1]:.3g}, cosine {worst[2]:.6g}"
    )
    nan = sum(one.nan for one in some)
    return text + (f", {nan:,} NaN or infinite on one side" if nan else "")


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
        for one, other in left[-1]:
            ids = id(one), id(other)
            if one is other or ids in seen:
                continue
            seen[ids] = one, other
            inside = _inside(one, other)
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
