"""Rules applied to the names of a state: what it offers under its new names comes out, and what is worth a warning.

Nothing is read. Names that no rule fits keep their name. A rule that joins tensors waits until it has all of them; where
some are absent, those that are there keep their names, and a note says which is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from statedict.errors import CollisionError
from statedict.state import Spec

from ..operations._operation import on_specs
from ..operations._views import Unstack, dimension
from ._index import Hit, Index
from ._near import near_pattern
from ._recipe import Offer, Offers, Part, Recipe, sources_of
from ._rule import AnyRule, Rule

SpecOf = Callable[[str], Spec | None]


class Resolved(NamedTuple):
    """`offers` by new name, in the order of their first source; `notes` are warnings, as text."""

    offers: Offers
    notes: list[str]


class _Group:
    """What a rule that joins has found of one set of tensors: names by their place among the sources."""

    __slots__ = ("found", "holes", "rule")

    def __init__(self, rule: Rule, holes: dict[str, str]) -> None:
        self.rule = rule
        self.holes = holes
        self.found: dict[str, str] = {}


def resolve(rules: Sequence[AnyRule], index: Index, names: Mapping[str, str], spec: SpecOf) -> Resolved:
    """What becomes of `names` (as the rules see them, to the source's own).

    Raises CollisionError where two sources get one name, ValueError where a tensor does not fit the operations of its rule.
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
            if isinstance(rule, Rule) and not rule.renames_only:
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
    return Resolved(offers, notes + _unused(rules, used, list(names)))


def renamed(rule: AnyRule, hit: Hit) -> str:
    """The name that a rule that only renames gives."""
    return rule.targets[0].fill(hit.holes) if hit.new is None and isinstance(rule, Rule) else str(hit.new)


def _join(
    groups: dict[tuple[int, tuple[str, ...]], _Group],
    found: list[str | _Group],
    olds: list[str],
    rule: Rule,
    hit: Hit,
    name: str,
) -> None:
    """Put the name where the other sources of its recipe are."""
    holes = {hole: text for hole, text in hit.holes.items() if hole != rule.gathered}
    key = (hit.rule, tuple(text for _, text in sorted(holes.items())))
    if key not in groups:
        groups[key] = _Group(rule, holes)
        found.append(groups[key])
        olds.append(name)
    place = hit.holes[rule.gathered] if rule.gathered else str(hit.position)
    groups[key].found[place] = name


def _made(group: _Group, names: Mapping[str, str], spec: SpecOf, notes: list[str]) -> list[tuple[str, Offer]]:
    """What a group gives, or its sources as they were where it is not complete."""
    rule, count = group.rule, len(group.found) if group.rule.gathered else len(group.rule.sources)
    absent = [n for n in range(count) if str(n) not in group.found]
    if absent:
        hole = {rule.gathered: str(absent[0])} if rule.gathered else {}
        source = rule.sources[0 if rule.gathered else absent[0]].fill({**group.holes, **hole})
        notes.append(f"'{rule}' was not applied to {', '.join(group.found.values())}: there is no {source!r}")
        return [(name, names[name]) for name in group.found.values()]
    sources = tuple(names[group.found[str(n)]] for n in range(count))
    recipe = Recipe(_targets(rule, group.holes, sources, spec), sources, rule.operations, rule)
    return [(name, Part(recipe, number)) for number, name in enumerate(recipe.targets)]


def _targets(rule: Rule, holes: dict[str, str], sources: tuple[str, ...], spec: SpecOf) -> tuple[str, ...]:
    """The names that come out; ValueError where the operations do not fit the tensors."""
    specs = []
    for name in sources:
        found = spec(name)
        if found is None:
            raise ValueError(f"'{rule}' converts strided tensors, and {name!r} is none")
        specs.append(found)
    try:
        count = _count(rule, specs)
        on_specs(rule.operations, specs, count)
    except ValueError as error:
        raise ValueError(f"'{rule}' cannot be applied to {', '.join(map(repr, sources))}: {error}") from None
    if rule.scattered:
        return tuple(rule.targets[0].fill({**holes, rule.scattered: str(n)}) for n in range(count))
    return tuple(target.fill(holes) for target in rule.targets)


def _count(rule: Rule, specs: list[Spec]) -> int:
    """How many tensors come out."""
    if not rule.scattered:
        return len(rule.targets)
    for operation in rule.operations:
        if isinstance(operation, Unstack):
            return specs[0].shape[dimension(specs[0], operation.dim, operation)]
        specs = operation.specs(specs, 1)
    return 1


def _unused(rules: Sequence[AnyRule], used: set[int], names: Sequence[str]) -> list[str]:
    """A note for each rule that no name belongs to, with the name that is nearest to it."""
    notes = []
    for number, rule in enumerate(rules):
        if number not in used:
            nearest = near_pattern(str(rule.sources[0]), names) if isinstance(rule, Rule) else []
            notes.append(f"'{rule}' matches no name" + "".join(f"; the nearest is {name!r}" for name in nearest))
    return notes
