"""Make a KeyMap from matches: rules with operations first, then the rules that only rename."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..names._generalise import generalise, templates
from ..names._index import Hit
from ..names._keymap import KeyMap
from ..names._rule import Rule
from ..names._template import Template
from ..operations._operation import Operation, parse_operation


class Converted(NamedTuple):
    """`targets` are made from `sources` by `operations`, which is the text of a rule's operations, or empty."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    operations: str


def key_map(made: Sequence[Converted], others: Collection[str], wanted: Collection[str]) -> KeyMap:
    """Return a KeyMap with few rules that does exactly what `made` says.

    `others` are names without a target; none of them becomes a name in `wanted`.
    """
    renamed = {one.sources[0]: one.targets[0] for one in made if not one.operations}
    converted = [one for one in made if one.operations]
    rules = _converting(converted, [*renamed, *others])
    return KeyMap([*rules, *generalise(renamed, others, wanted).rules])


def _converting(made: Sequence[Converted], others: Collection[str]) -> list[Rule]:
    """Return rules with placeholders where they convert exactly these names, and rules without where they do not."""
    rules = {_rule(one, literal=False): None for one in made}
    index = KeyMap(list(rules)).index
    proposed = list(rules)
    wrong = {proposed[hit.rule] for name in others if (hit := index.find(name))}
    for one in made:
        rule = _rule(one, literal=False)
        for position, name in enumerate(one.sources):
            hit = index.find(name)
            if (
                hit is None
                or proposed[hit.rule] != rule
                or hit.position != position
                or _filled(rule, hit) != one.targets
            ):
                wrong |= {rule} | ({proposed[hit.rule]} if hit else set())
    exact = [_rule(one, literal=True) for one in made if _rule(one, literal=False) in wrong]
    return exact + [rule for rule in proposed if rule not in wrong]


def _filled(rule: Rule, hit: Hit) -> tuple[str, ...]:
    return tuple(target.fill(hit.placeholders) for target in rule.targets)


def _rule(one: Converted, *, literal: bool) -> Rule:
    sources, targets = templates(one.sources, one.targets)
    if literal:
        sources, targets = (tuple(Template((name,)) for name in names) for names in (one.sources, one.targets))
    return Rule(sources, targets, _operations(one.operations))


def _operations(text: str) -> tuple[Operation, ...]:
    return tuple(parse_operation(part) for part in text.split("|"))
