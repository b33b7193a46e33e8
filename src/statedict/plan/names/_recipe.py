"""Recipes: how a rule converts tensors of a state into others, first as specs, then as leaves. Reads no tensor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from statedict.state import Casts, DType, Leaf, Spec, arguments, leaf_of, parents, renamed_metadata

from ..operations._operation import Operation, on_leaves, on_specs
from ..operations._specs import spec_of
from ._rule import Rule


class Recipe(NamedTuple):
    """`targets` are made from `sources` by the operations of a rule, in order."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    operations: tuple[Operation, ...]
    rule: Rule

    def leaves(self, given: Mapping[str, Any]) -> list[Leaf]:
        """Return the leaves of the targets, which are computed when they are read."""
        return on_leaves(self.operations, [self._leaf(given, name) for name in self.sources], len(self.targets))

    def _leaf(self, given: Mapping[str, Any], name: str) -> Leaf:
        leaf = leaf_of(given[name])
        if not isinstance(leaf, Leaf):
            found = "a sparse, quantised or nested tensor" if leaf else arguments.a(given[name])
            raise ValueError(f"'{self.rule}' converts strided tensors, but {name!r} is {found}")
        return leaf


class RecipeOutput(NamedTuple):
    """Output number `number` of a recipe."""

    recipe: Recipe
    number: int

    def spec(self, given: Mapping[str, Any]) -> Spec:
        """Return its spec, computed from those of the sources."""
        recipe = self.recipe
        specs = [spec for name in recipe.sources if (spec := spec_of(given[name]))]
        return on_specs(recipe.operations, specs, len(recipe.targets))[self.number]


# What a source offers under a name: its own tensor (by its name), or an output of a recipe.
Offer = str | RecipeOutput
Offers = dict[str, Offer]


def sources_of(offer: Offer) -> tuple[str, ...]:
    """Return the source names that an offer is made from."""
    return (offer,) if isinstance(offer, str) else offer.recipe.sources


def moved_metadata(
    metadata: Mapping[str, Any] | None, moves: Iterable[tuple[str, Sequence[str]]]
) -> OrderedDict[str, Any] | None:
    """Return `_metadata` moved with the names; `moves` are pairs of the new name and the old ones.

    If one name became several, each of the new modules gets the entry of the old one.
    """
    if metadata is None:
        return None
    became: dict[str, list[str]] = {}
    for new, olds in moves:
        for old in olds:
            became.setdefault(old, []).append(new)
    moved = renamed_metadata(metadata, {old: news[0] for old, news in became.items()})
    for old, news in became.items():
        for new in news[1:]:
            owners = {path: metadata[path] for path in parents(old) if path in metadata}
            for path, entry in renamed_metadata(owners, {old: new}).items():
                moved.setdefault(path, entry)
    return moved


class Evaluator:
    """Evaluates each recipe once, and each cast of a tied tensor once, so that ties are preserved."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given
        self._made: dict[int, list[Leaf]] = {}
        self._casts = Casts()

    def offered(self, offer: Offer) -> Any:
        """Return the value of an offer: the source's own value, unchanged, or a computed leaf."""
        if isinstance(offer, str):
            return self._given[offer]
        key = id(offer.recipe)
        if key not in self._made:
            self._made[key] = offer.recipe.leaves(self._given)
        return self._made[key][offer.number]

    def cast(self, leaf: Leaf, dtype: DType) -> Leaf:
        """Return the leaf cast to another dtype."""
        return self._casts.leaf(leaf, dtype)
