"""Merge several states into one. Each tensor is computed separately when it is read, so files may be larger than memory.

Names are paired as in a load: equal names, then names that are equal without wrappers. Sums are computed in float64 for
float32 and float64, and in float32 for smaller dtypes; the result has the dtype of the first state (or of the base). Only
floating-point and complex tensors are merged: integers, booleans and other values (position ids, step counts) are taken from
the first state, and so are sparse and quantised tensors that are equal in all states. Tensors that are tied in every state
stay tied.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import add
from typing import TYPE_CHECKING, Any

from statedict.errors import CollisionError, MergeError
from statedict.state import Compound, DType, Leaf, StateDict, cast_array, computed, fold, leaf_of, raw_values
from statedict.state import dtype as find_dtype

from ...errors import printable
from ..names._wrappers import pair
from ..operations._joins import plain
from ..operations._specs import dtype_of, shape_of
from ._diff import equal

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Weights = float | Sequence[float] | None
Combine = Callable[[Sequence[Leaf]], Leaf]


def merge(
    sources: Sequence[Mapping[str, Any]],
    method: str = "average",
    *,
    weights: Weights = None,
    base: Mapping[str, Any] | None = None,
) -> StateDict:
    """Merge several states into one; its tensors are computed when they are read.

    Args:
        sources: the states.
        method: `"average"`: the mean, weighted by `weights` (which need not add up to one).
            `"task_arithmetic"`: `base` plus each source's difference from it, times its weight (default 1).
            `"slerp"`: spherical interpolation of two states, each tensor as one vector; `weights` is the position from the
            first (0) to the second (1), by default 0.5.
            `"union"`: all names of all states; each name in one state only.
        weights: one for each source, or a number for `"slerp"`.
        base: for `"task_arithmetic"`.

    Metadata texts of the files are kept unless they differ between the sources; a UserWarning lists those that do.

    Raises MergeError (a ValueError) if names or shapes differ, listing them; CollisionError if two states of a union have
    the same name; ValueError for arguments that do not fit together.

    >>> import numpy as np
    >>> merge([{"w": np.zeros(2)}, {"w": np.ones(2)}, {"w": np.full(2, 5.0)}]).numpy()["w"]
    array([2., 2.])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    if not sources:
        raise ValueError("sources is empty: give at least one state to merge")
    if (base is not None) != (method == "task_arithmetic"):
        raise ValueError("base= is required for method='task_arithmetic', and not allowed for other methods")
    merged = METHODS[method](list(sources), weights, base)
    merged.texts = _common_texts([*sources, *([] if base is None else [base])])
    return merged


def _average(sources: list[Mapping[str, Any]], weights: Weights, base: Mapping[str, Any] | None) -> StateDict:
    given = _given(weights, len(sources))
    total = sum(given)
    if not total:
        raise ValueError(f"weights={weights!r} add up to zero: the average is not defined")
    return _merged(sources, lambda leaves: _sum(leaves, [weight / total for weight in given]))


def _task_arithmetic(sources: list[Mapping[str, Any]], weights: Weights, base: Mapping[str, Any] | None) -> StateDict:
    given = _given(weights, len(sources))
    return _merged([base or {}, *sources], lambda leaves: _sum(leaves, [1.0 - sum(given), *given]))


def _slerp(sources: list[Mapping[str, Any]], weights: Weights, base: Mapping[str, Any] | None) -> StateDict:
    if len(sources) != 2:
        raise ValueError(f"'slerp' needs exactly two states, not {len(sources)}")
    along = 0.5 if weights is None else weights
    if not isinstance(along, (int, float)):
        raise ValueError(f"weights={weights!r}: 'slerp' needs one number, from 0 (the first state) to 1 (the second)")

    def combine(leaves: Sequence[Leaf]) -> Leaf:
        wide, (first, second) = _wide(leaves[0].spec.dtype), leaves
        arc = computed(first.spec.dense()._replace(dtype=wide), [first, second], lambda a, b: _arc(a, b, along, wide))
        return _as(arc, first)

    return _merged(sources, combine)


def _union(sources: Sequence[Mapping[str, Any]]) -> StateDict:
    values: dict[str, Any] = {}
    whence: dict[str, int] = {}
    metadata: dict[str, Any] = {}
    for number, source in enumerate(sources):
        for name, value in raw_values(source).items():
            if name in values and not _is_same(values[name], value):
                raise CollisionError(name, [f"sources[{n}][{name!r}]" for n in (whence[name], number)])
            values[name], whence[name] = value, number
        for path, entry in (getattr(source, "_metadata", None) or {}).items():
            metadata.setdefault(path, entry)
    return StateDict(values, metadata or None)


def _merged(sources: Sequence[Mapping[str, Any]], combine: Combine) -> StateDict:
    """Return the first source with each floating-point tensor combined with those of the others."""
    first = raw_values(sources[0])
    states = [first, *(_aligned(first, raw_values(other), n) for n, other in enumerate(sources[1:], 1))]
    made: dict[Hashable, Leaf] = {}
    values: dict[str, Any] = {}
    for name, value in first.items():
        dtype = dtype_of(value)
        if dtype is None or not (dtype.is_floating or dtype.is_complex):
            values[name] = value
            continue
        if isinstance(leaf_of(value), Compound) and all(equal(value, state[name]) for state in states[1:]):
            values[name] = value
            continue
        leaves = [_leaf(state[name], name) for state in states]
        key = tuple(leaf.shown for leaf in leaves)
        if key not in made:
            made[key] = combine(leaves)
        values[name] = made[key]
    metadata = getattr(sources[0], "_metadata", None)
    return StateDict(values, metadata, backend=getattr(sources[0], "_backend", "auto"))


def _common_texts(sources: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the metadata texts of the sources' files; issues a UserWarning for those that differ, which are dropped."""
    found: dict[str, set[str]] = {}
    for source in sources:
        for name, text in (getattr(source, "texts", None) or {}).items():
            found.setdefault(name, set()).add(text)
    dropped = [printable(repr(name)) for name, texts in found.items() if len(texts) > 1]
    if dropped:
        shown = ", ".join(dropped[:10]) + (f" and {len(dropped) - 10:,} more" if len(dropped) > 10 else "")
        warnings.warn(f"not merged: the metadata {shown}, which differs between the sources", UserWarning, stacklevel=4)
    return {name: text for name, (text, *others) in found.items() if not others}


def _aligned(first: Mapping[str, Any], other: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the values of another source under the first one's names; raises MergeError if names or shapes differ."""
    pairs = pair(other, first).pairs
    values = {slot: other[name] for name, slot in pairs.items()}
    lacking = [name for name in first if name not in values]
    if lacking or len(values) != len(other):
        extra = [name for name in other if name not in pairs]
        said = [
            f"{word} {_listed(names)}"
            for word, names in (("does not have", lacking), ("has the extra", extra))
            if names
        ]
        raise MergeError(f"source {number} {' and '.join(said)}", names=[*lacking, *extra])
    misfits = [name for name, value in first.items() if shape_of(value) != shape_of(values[name])]
    if misfits:
        raise MergeError(f"source {number} has different shapes for {_listed(misfits)}", names=misfits)
    return values


def _sum(leaves: Sequence[Leaf], weights: Sequence[float]) -> Leaf:
    """Add weighted leaves in pairs, then pairs of pairs, so that only a few are in memory at a time."""
    wide = _wide(leaves[0].spec.dtype)
    spec = leaves[0].spec.dense()._replace(dtype=wide)
    row = [computed(spec, [leaf], _times(weight, wide)) for leaf, weight in zip(leaves, weights)]
    while len(row) > 1:
        row = [computed(spec, row[n : n + 2], add) if n + 1 < len(row) else row[n] for n in range(0, len(row), 2)]
    return _as(row[0], leaves[0])


def _times(weight: float, wide: DType) -> Callable[[Array], Array]:
    return lambda array: cast_array(array, wide) * weight


def _arc(a: Array, b: Array, along: float, wide: DType) -> Array:
    """Return the point on the arc from `a` to `b`; on the straight line if they are (anti)parallel or zero."""
    import numpy as np

    a, b = cast_array(a, wide), cast_array(b, wide)
    norms = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    cosine = float(np.vdot(a, b).real) / norms if norms else 1.0
    if abs(cosine) > 0.9995:  # the sine of the angle would consist of rounding errors
        between: Array = a * (1 - along) + b * along
        return between
    angle = np.arccos(cosine)
    arc: Array = (np.sin((1 - along) * angle) * a + np.sin(along * angle) * b) / np.sin(angle)
    return arc


def _as(leaf: Leaf, first: Leaf) -> Leaf:
    """Return the computed leaf in the dtype, and with the traits, of the first source's leaf."""
    dtype = first.spec.dtype
    return computed(leaf.spec._replace(dtype=dtype), [leaf], lambda array: cast_array(array, dtype), plain(first))


def _wide(dtype: DType) -> DType:
    """Return the dtype for sums."""
    if dtype.is_complex:
        return find_dtype("complex128")
    return find_dtype("float32" if dtype.itemsize < 4 else "float64")


def _given(weights: Weights, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, (int, float)) or len(weights) != count:
        raise ValueError(f"weights={weights!r}: expected one number for each of the {count} sources")
    return [float(weight) for weight in weights]


def _leaf(value: Any, name: str) -> Leaf:
    leaf = leaf_of(value)
    if not isinstance(leaf, Leaf):
        found = f" ({leaf.layout} in one of them, and not equal in all)" if isinstance(leaf, Compound) else ""
        raise MergeError(
            f"{name!r} is not a strided tensor in every source{found}, so it cannot be merged", names=[name]
        )
    return leaf


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same tensor; does not read it."""
    a, b = leaf_of(one), leaf_of(other)
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return a.shown == b.shown
    if isinstance(a, Compound) and isinstance(b, Compound):
        shown = [{role: part.shown for role, part in each.parts.items()} for each in (a, b)]
        return a.facts == b.facts and shown[0] == shown[1]
    return one is other


def _listed(names: Sequence[str]) -> str:
    shown = [group.text for group in fold(names)]
    return ", ".join(shown[:10]) + (f", … ({len(names):,} names)" if len(shown) > 10 else "")


METHODS: dict[str, Callable[[list[Mapping[str, Any]], Weights, Mapping[str, Any] | None], StateDict]] = {
    "average": _average,
    "task_arithmetic": _task_arithmetic,
    "slerp": _slerp,
    "union": lambda sources, weights, base: _union(sources),
}
