"""Recipes: which tensors of a state become which, where a rule converts them. Decided on specs; nothing is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from statedict.state import Leaf, Spec, leaf_of, parents, renamed_metadata

from ..operations._facts import spec_of
from ..operations._operation import Operation, on_leaves, on_specs
from ._rule import Rule


class Recipe(NamedTuple):
    """`targets` are made of `sources` by the operations of a rule, in turn."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    operations: tuple[Operation, ...]
    rule: Rule

    def leaves(self, given: Mapping[str, Any]) -> list[Leaf]:
        """The targets' leaves, computed when they are read."""
        return on_leaves(self.operations, [self._leaf(given, name) for name in self.sources], len(self.targets))

    def _leaf(self, given: Mapping[str, Any], name: str) -> Leaf:
        leaf = leaf_of(given[name])
        if not isinstance(leaf, Leaf):
            found = "a sparse, quantised or nested tensor" if leaf else f"a {type(given[name]).__name__}"
            raise ValueError(f"'{self.rule}' converts strided tensors, but {name!r} is {found}")
        return leaf


class Part(NamedTuple):
    """Number `number` of what a recipe makes."""

    recipe: Recipe
    number: int

    def spec(self, given: Mapping[str, Any]) -> Spec:
        """What is known of it before it is read."""
        recipe = self.recipe
        specs = [spec for name in recipe.sources if (spec := spec_of(given[name]))]
        return on_specs(recipe.operations, specs, len(recipe.targets))[self.number]


# What a source offers under some name: its own tensor of this name, or a part of what a recipe makes.
Offer = str | Part
Offers = dict[str, Offer]


def sources_of(offer: Offer) -> tuple[str, ...]:
    """The source names that an offer is made of."""
    return (offer,) if isinstance(offer, str) else offer.recipe.sources


def moved_metadata(
    metadata: Mapping[str, Any] | None, moves: Iterable[tuple[str, Sequence[str]]]
) -> OrderedDict[str, Any] | None:
    """`_metadata` following the names, `moves` being new name and old ones.

    Where one name became several, each of the new modules has the entry of the old one.
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
