"""Apply rules to the names of a state; returns the tensors under their new names, and warnings.

Reads no tensor. Names that do not match any rule are unchanged. A rule that joins tensors needs all of them: if one is
missing, the others keep their names, and a note says which is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from statedict.errors import CollisionError
from statedict.state import Spec

from ..operations._operation import on_specs
from ..operations._views import Unstack, dimension
from ._index import Hit, Index
from ._near_misses import near_pattern
from ._recipe import Offer, Offers, Recipe, RecipeOutput, sources_of
from ._rule import AnyRule, Rule

SpecOf = Callable[[str], Spec | None]


class Resolved(NamedTuple):
    """`offers` by new name, in the order of their first source; `notes` are warnings, as text."""

    offers: Offers
    notes: list[str]


class _Group:
    """The tensors found so far for one application of a joining rule: names by their position among the sources."""

    __slots__ = ("found", "placeholders", "rule")

    def __init__(self, rule: Rule, placeholders: dict[str, str]) -> None:
        self.rule = rule
        self.placeholders = placeholders
        self.found: dict[str, str] = {}


def resolve(
    rules: Sequence[AnyRule], index: Index, names: Mapping[str, str], spec: SpecOf, *, unused: bool = True
) -> Resolved:
    """Apply the rules to `names` (from the name that rules see to the source's own); notes name `unused` rules if asked.

    Raises CollisionError if two tensors would get the same name, ValueError if a tensor does not fit its rule's operations.
    """
    used: set[int] = set()
    groups: dict[tuple[int, tuple[str, ...]], _Group] = {}
    found: list[str | _Group] = []
    olds: list[str] = []
    for name in names:
        hit = index.find(name)
        if hit is not None:
            used.add(hit.rule)
            rule = rules[hit.rule]
            if isinstance(rule, Rule) and rule.operations:
                _join(groups, found, olds, rule, hit, name)
                continue
        found.append(name if hit is None else renamed(rule, hit))
        olds.append(names[name])
    notes: list[str] = []
    offers: Offers = {}
    for new, old in zip(found, olds):
        for name, offer in [(new, old)] if isinstance(new, str) else _made(new, names, spec, notes):
            if name in offers:
                raise CollisionError(name, (sources_of(offers[name])[0], sources_of(offer)[0]))
            offers[name] = offer
    return Resolved(offers, notes + (_unused(rules, used, list(names)) if unused else []))


def renamed(rule: AnyRule, hit: Hit) -> str:
    """Return the new name that a rule without operations gives."""
    return rule.targets[0].fill(hit.placeholders) if hit.new is None and isinstance(rule, Rule) else str(hit.new)


def _join(
    groups: dict[tuple[int, tuple[str, ...]], _Group],
    found: list[str | _Group],
    olds: list[str],
    rule: Rule,
    hit: Hit,
    name: str,
) -> None:
    """Add the name to the group of the other sources of its recipe."""
    placeholders = {placeholder: text for placeholder, text in hit.placeholders.items() if placeholder != rule.gathered}
    key = (hit.rule, tuple(text for _, text in sorted(placeholders.items())))
    if key not in groups:
        groups[key] = _Group(rule, placeholders)
        found.append(groups[key])
        olds.append(name)
    place = hit.placeholders[rule.gathered] if rule.gathered else str(hit.position)
    groups[key].found[place] = name


def _made(group: _Group, names: Mapping[str, str], spec: SpecOf, notes: list[str]) -> list[tuple[str, Offer]]:
    """Return the outputs of a group, or its unchanged sources if it is not complete."""
    rule, count = group.rule, len(group.found) if group.rule.gathered else len(group.rule.sources)
    absent = [n for n in range(count) if str(n) not in group.found]
    if absent:
        placeholder = {rule.gathered: str(absent[0])} if rule.gathered else {}
        source = rule.sources[0 if rule.gathered else absent[0]].fill({**group.placeholders, **placeholder})
        notes.append(f"'{rule}' was not applied to {', '.join(group.found.values())}: {source!r} is missing")
        return [(name, names[name]) for name in group.found.values()]
    sources = tuple(names[group.found[str(n)]] for n in range(count))
    recipe = Recipe(_targets(rule, group.placeholders, sources, spec), sources, rule.operations, rule)
    return [(name, RecipeOutput(recipe, number)) for number, name in enumerate(recipe.targets)]


def _targets(rule: Rule, placeholders: dict[str, str], sources: tuple[str, ...], spec: SpecOf) -> tuple[str, ...]:
    """Return the names of the outputs; raises ValueError if the operations do not fit the tensors."""
    specs = []
    for name in sources:
        found = spec(name)
        if found is None:
            raise ValueError(f"'{rule}' converts strided tensors, but {name!r} is not one")
        specs.append(found)
    try:
        count = _count(rule, specs)
        on_specs(rule.operations, specs, count)
    except ValueError as error:
        raise ValueError(f"'{rule}' cannot be applied to {', '.join(map(repr, sources))}: {error}") from None
    if rule.scattered:
        return tuple(rule.targets[0].fill({**placeholders, rule.scattered: str(n)}) for n in range(count))
    return tuple(target.fill(placeholders) for target in rule.targets)


def _count(rule: Rule, specs: list[Spec]) -> int:
    """Return the number of outputs."""
    if not rule.scattered:
        return len(rule.targets)
    for operation in rule.operations:
        if isinstance(operation, Unstack):
            return specs[0].shape[dimension(specs[0], operation.dim, operation)]
        specs = operation.specs(specs, 1)
    return 1


def _unused(rules: Sequence[AnyRule], used: set[int], names: Sequence[str]) -> list[str]:
    """Return a note for each rule that does not match any name, with the nearest name."""
    notes = []
    for number, rule in enumerate(rules):
        if number not in used:
            nearest = near_pattern(str(rule.sources[0]), names) if isinstance(rule, Rule) else []
            notes.append(
                f"'{rule}' does not match any name" + "".join(f"; the nearest is {name!r}" for name in nearest)
            )
    return notes
