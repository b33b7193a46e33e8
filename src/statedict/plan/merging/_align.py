"""Pair the tensors of several states by name, and combine them; what cannot be combined is taken from the first state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from statedict.errors import MergeError
from statedict.state import Compound, Leaf, StateDict, few, fold, leaf_of, raw_values

from ...errors import printable
from ..comparing._diff import equal
from ..names._wrappers import pair
from ..operations._specs import dtype_of, shape_of

State = Mapping[str, Any]
Combine = Callable[[str, Sequence[Leaf]], Leaf]


def combined(sources: Sequence[State], combine: Combine) -> StateDict:
    """Return the first source with each floating-point tensor combined with those of the others.

    `combine` gets the name in the first source, and the leaves. Tensors that are tied in every source are combined once,
    under the first of their names.
    """
    first = raw_values(sources[0])
    states = [first, *(_aligned(first, raw_values(other), n) for n, other in enumerate(sources[1:], 1))]
    made: dict[Hashable, Leaf] = {}
    values: dict[str, Any] = {}
    for name, value in first.items():
        dtype = dtype_of(value)
        is_common = all(name in state for state in states)
        if dtype is None or not is_common or not (dtype.is_floating or dtype.is_complex):
            values[name] = value
            continue
        if isinstance(leaf_of(value), Compound) and all(equal(value, state[name]) for state in states[1:]):
            values[name] = value
            continue
        leaves = [strided(state[name], name) for state in states]
        key = tuple(leaf.identity for leaf in leaves)
        if key not in made:
            made[key] = combine(name, leaves)
        values[name] = made[key]
    return like(sources[0], values)


def like(source: State, values: dict[str, Any]) -> StateDict:
    """Return a state of these values, with the `_metadata` of modules and the array library of the source."""
    return StateDict(values, getattr(source, "_metadata", None), backend=getattr(source, "_backend", "auto"))


def strided(value: Any, name: str) -> Leaf:
    """Return the leaf of a strided tensor; raise MergeError for other values."""
    leaf = leaf_of(value)
    if not isinstance(leaf, Leaf):
        found = f" ({leaf.layout} in one of them, and not equal in all)" if isinstance(leaf, Compound) else ""
        raise MergeError(
            f"{name!r} is not a strided tensor in every source{found}, so it cannot be merged", names=[name]
        )
    return leaf


def common_texts(sources: Sequence[State]) -> dict[str, str]:
    """Return the metadata texts of the sources' files; issues a UserWarning for those that differ, which are dropped."""
    found: dict[str, set[str]] = {}
    for source in sources:
        for name, text in (getattr(source, "texts", None) or {}).items():
            found.setdefault(name, set()).add(text)
    dropped = [printable(repr(name)) for name, texts in found.items() if len(texts) > 1]
    if dropped:
        text = f"not merged: the metadata {few(dropped, 10)}, which differs between the sources"
        warnings.warn(text, UserWarning, stacklevel=5)
    return {name: text for name, (text, *others) in found.items() if not others}


def names_listed(names: Sequence[str]) -> str:
    """Return names as text, folded over the layers; at most ten groups of them."""
    shown = [group.text for group in fold(names)]
    return ", ".join(shown[:10]) + (f", … ({len(names):,} names)" if len(shown) > 10 else "")


def _aligned(first: State, other: State, number: int) -> dict[str, Any]:
    """Return the values of another source under the first one's names; raises MergeError if names or shapes differ.

    An AveragedModel's number of updates may be in one of them only.
    """
    pairs, _, own = pair(other, first)
    values = {slot: other[name] for name, slot in pairs.items()}
    lacking = [name for name in first if name not in values and name not in own]
    extra = [name for name in other if name not in pairs and name not in own] if len(values) != len(other) else []
    if lacking or extra:
        said = [
            f"{word} {names_listed(names)}"
            for word, names in (("does not have", lacking), ("has the extra", extra))
            if names
        ]
        raise MergeError(f"sources[{number}] {' and '.join(said)}", names=[*lacking, *extra])
    misfits = [name for name, value in first.items() if name in values and shape_of(value) != shape_of(values[name])]
    if misfits:
        raise MergeError(f"sources[{number}] has different shapes for {names_listed(misfits)}", names=misfits)
    return values
