"""Rules applied to the names of a state: recipes come out, and what is worth a warning. Nothing is read.

Names that no rule fits keep their name. A rule that joins tensors waits until it has all of them; where some are absent,
those that are there keep their names, and a note says which is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from statedict.state import Spec

from ._index import Hit, Index
from ._near import Near
from ._operation import on_specs
from ._recipe import Recipe
from ._rule import AnyRule, Escape, Rule
from ._views import Unstack, dimension

SpecOf = Callable[[str], Spec | None]


class Resolved(NamedTuple):
    """`recipes` in the order of their first source; `notes` are warnings, as text."""

    recipes: list[Recipe]
    notes: list[str]


class _Group:
    """What a rule that joins has found of one set of tensors: names by their place among the sources."""

    __slots__ = ("found", "holes", "rule")

    def __init__(self, rule: Rule, holes: dict[str, str]) -> None:
        self.rule = rule
        self.holes = holes
        self.found: dict[str, str] = {}


def resolve(rules: Sequence[AnyRule], index: Index, names: Iterable[str], spec: SpecOf) -> Resolved:
    """A recipe for every name; ValueError where a tensor does not fit the operations of its rule."""
    names = list(names)
    used: set[int] = set()
    groups: dict[tuple[int, tuple[str, ...]], _Group] = {}
    found: list[Recipe | _Group] = []
    for name in names:
        hit = index.find(name)
        if hit is None:
            found.append(Recipe((name,), (name,)))
            continue
        used.add(hit.rule)
        rule = rules[hit.rule]
        if isinstance(rule, Escape) or rule.renames_only:
            found.append(Recipe((renamed(rule, hit),), (name,), (), rule))
        else:
            _join(groups, found, rule, hit, name)
    notes: list[str] = []
    recipes = [r for one in found for r in ([one] if isinstance(one, Recipe) else _made(one, spec, notes))]
    return Resolved(recipes, notes + _unused(rules, used, names))


def renamed(rule: AnyRule, hit: Hit) -> str:
    """The name that a rule that only renames gives."""
    return rule.targets[0].fill(hit.holes) if hit.new is None and isinstance(rule, Rule) else str(hit.new)


def _join(
    groups: dict[tuple[int, tuple[str, ...]], _Group], found: list[Recipe | _Group], rule: Rule, hit: Hit, name: str
) -> None:
    """Put the name where the other sources of its recipe are."""
    holes = {hole: text for hole, text in hit.holes.items() if hole != rule.gathered}
    key = (hit.rule, tuple(text for _, text in sorted(holes.items())))
    if key not in groups:
        groups[key] = _Group(rule, holes)
        found.append(groups[key])
    place = hit.holes[rule.gathered] if rule.gathered else str(hit.position)
    groups[key].found[place] = name


def _made(group: _Group, spec: SpecOf, notes: list[str]) -> list[Recipe]:
    """The recipe of a group, or its sources as they were where it is not complete."""
    rule, count = group.rule, len(group.found) if group.rule.gathered else len(group.rule.sources)
    absent = [n for n in range(count) if str(n) not in group.found]
    if absent:
        hole = {rule.gathered: str(absent[0])} if rule.gathered else {}
        source = rule.sources[0 if rule.gathered else absent[0]].fill({**group.holes, **hole})
        notes.append(f"'{rule}' was not applied to {', '.join(group.found.values())}: there is no {source!r}")
        return [Recipe((name,), (name,)) for name in group.found.values()]
    sources = tuple(group.found[str(n)] for n in range(count))
    return [Recipe(_targets(rule, group.holes, sources, spec), sources, rule.operations, rule)]


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
    idle = [rule for number, rule in enumerate(rules) if number not in used]
    near = Near(names) if idle else None
    notes = []
    for rule in idle:
        pattern = str(rule.sources[0]) if isinstance(rule, Rule) else str(rule)
        nearest = near.to(pattern) if near else []
        notes.append(f"'{rule}' matches no name" + (f"; the nearest is {nearest[0]!r}" if nearest else ""))
    return notes
