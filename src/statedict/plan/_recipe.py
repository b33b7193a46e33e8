"""Recipes: which names of a state become which, and what happens to their tensors on the way.

A recipe is decided on names and specs; `values` and `metadata` carry it out, and read nothing either.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from statedict.errors import CollisionError
from statedict.state import Leaf, leaf_of, renamed_metadata

from ._operation import Operation, on_leaves
from ._rule import AnyRule


class Recipe(NamedTuple):
    """`targets` are made of `sources`. Without operations there is one of each, and the value passes through untouched."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    operations: tuple[Operation, ...] = ()
    rule: AnyRule | None = None

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """The values of the targets: as they are, or leaves that are computed when they are read."""
        if not self.operations:
            return [given[self.sources[0]]]
        return list(
            on_leaves(self.operations, [_leaf(given, name, self.rule) for name in self.sources], len(self.targets))
        )


def check_collisions(recipes: Iterable[Recipe]) -> None:
    """CollisionError where two recipes make one name."""
    taken: dict[str, str] = {}
    for recipe in recipes:
        for target in recipe.targets:
            if target in taken:
                raise CollisionError(target, (taken[target], recipe.sources[0]))
            taken[target] = recipe.sources[0]


def moved_metadata(
    metadata: Mapping[str, Any] | None, moves: Iterable[tuple[Sequence[str], Sequence[str]]]
) -> OrderedDict[str, Any] | None:
    """`_metadata` following the names, `moves` being (sources, targets).

    Where one name became several, each of the new modules has the entry of the old one.
    """
    if metadata is None:
        return None
    rounds: list[dict[str, str]] = [{}]
    for sources, targets in moves:
        for nth, target in enumerate(targets):
            if nth == len(rounds):
                rounds.append(dict(rounds[0]))
            for source in sources:
                rounds[nth][source] = target
    if all(old == new for old, new in rounds[0].items()) and len(rounds) == 1:
        return OrderedDict(metadata)
    moved = renamed_metadata(metadata, rounds[0])
    for names in rounds[1:]:
        for path, entry in renamed_metadata(metadata, names).items():
            moved.setdefault(path, entry)
    return moved


def _leaf(given: Mapping[str, Any], name: str, rule: AnyRule | None) -> Leaf:
    leaf = leaf_of(given[name])
    if not isinstance(leaf, Leaf):
        found = "a sparse, quantised or nested tensor" if leaf else f"a {type(given[name]).__name__}"
        raise ValueError(f"'{rule}' converts strided tensors, but {name!r} is {found}")
    return leaf
