"""Find the rule that renames the most unexpected names to missing ones, in linear time.

Two names with the same ending vote for the rule that replaces one beginning by the other. The votes of some dozens of
missing names are counted, and the rules with the most votes are checked against all names.

A common ending `weight` or `bias` is weak evidence: every layer has one. Therefore a rule that replaces one module by
another needs more (`_has_evidence`): several modules that agree, or similar names of modules with the same parent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

from ..names._generalise import prefix_rule
from ..names._keymap import KeyMap
from ..names._rule import Rule

# The number of missing names that vote, evenly spaced.
_VOTERS = 64
# The number of rules (and those with as many votes) that are checked, and the number of names in the first check.
_COUNTED = 10
_SAMPLE = 2000
# All endings of a name together are quadratic in its length; this limits them for hostile files.
_MOST_CUTS = 30
# More equally good rules would be too many to show.
_MOST_RIVALS = 4
_ALIKE = 0.6


class Best(NamedTuple):
    """A rule that renames `solves` unexpected names to missing ones."""

    rule: Rule
    solves: int


def best_rules(missing: Collection[str], unexpected: Collection[str]) -> list[Best]:
    """Return the rule that renames the most unexpected names to missing ones, or several if each alone gives all of these.

    The list is empty if no rule is clearly the best.

    >>> [(str(best.rule), best.solves) for best in best_rules(["0.w", "1.w"], ["model.0.w", "model.1.w", "step"])]
    [('model.{*p} -> {*p}', 2)]
    >>> [str(best.rule) for best in best_rules(["a.w", "b.w"], ["query.a.w", "query.b.w", "key.a.w", "key.b.w"])]
    ['query.{*p} -> {*p}', 'key.{*p} -> {*p}']
    """
    wanted, some = set(missing), list(unexpected)[:: max(len(unexpected) // _SAMPLE, 1)]
    counted = [Best(rule, _count(rule, wanted, some)) for rule in _votes(list(missing), unexpected)]
    counted = [one for one in counted if one.solves and _has_evidence(one, wanted, unexpected)]
    whole = [one for one in counted if one.solves == len(wanted)]
    if 1 < len(whole) <= _MOST_RIVALS and len({one.rule.targets for one in whole}) == 1:
        return whole
    clear = [one for one in counted if not any(_rivals(one, other) for other in counted)]
    best = max(clear, key=lambda best: best.solves, default=None)
    return [best._replace(solves=_count(best.rule, wanted, unexpected))] if best else []


def cuts(name: str) -> Iterator[tuple[str, str]]:
    """Split a name in two at each of its first dots, the longest ending first."""
    yield "", name
    place = name.find(".")
    for _ in range(_MOST_CUTS):
        if place < 0:
            break
        yield name[:place], name[place + 1 :]
        place = name.find(".", place + 1)


def _rivals(one: Best, other: Best) -> bool:
    """Whether another rule is at least as good for the same names: `query -> q` could just as well be `key -> q`."""
    shared = one.rule.sources == other.rule.sources or one.rule.targets == other.rule.targets
    return one.rule != other.rule and shared and other.solves >= one.solves


def _votes(missing: list[str], unexpected: Collection[str]) -> list[Rule]:
    """Return the rules with the most votes of some missing names."""
    voters = missing[:: max(len(missing) // _VOTERS, 1)]
    tails: dict[str, list[str]] = {tail: [] for name in voters for _, tail in cuts(name)}
    lasts = {name.rpartition(".")[2] for name in voters}
    for name in unexpected:
        for _, tail in cuts(name) if name[name.rfind(".") + 1 :] in lasts else ():
            if tail in tails and len(tails[tail]) < 8:  # more would not change the result
                tails[tail].append(name)
    votes: Counter[Rule] = Counter()
    for name in voters:
        alike = next((tails[tail] for _, tail in cuts(name) if tails[tail]), [])
        votes.update(prefix_rule(other, name) for other in alike)
    least = min([count for _, count in votes.most_common(_COUNTED)], default=0)
    return [rule for rule, count in votes.most_common(4 * _COUNTED) if count >= least]


def _count(rule: Rule, wanted: Collection[str], unexpected: Iterable[str]) -> int:
    """Count the unexpected names that the rule would rename to wanted ones."""
    key_map = KeyMap(rule)
    return sum(key_map(name) in wanted for name in unexpected)


def _has_evidence(best: Best, wanted: Collection[str], unexpected: Collection[str]) -> bool:
    """Whether there is more evidence for a rule than an ending that all layers have."""
    olds, news = (str(side[0]).split(".")[:-1] for side in (best.rule.sources, best.rule.targets))
    shorter = min(len(olds), len(news))
    if olds[:shorter] == news[:shorter]:
        return True  # adds or removes a prefix or a component
    key_map = KeyMap(best.rule)
    modules = {name.rpartition(".")[0] for name in unexpected if key_map(name) in wanted}
    if len(modules) > 1:
        return True
    if olds[:-1] != news[:-1]:
        return False
    return best.solves == len(wanted) == len(unexpected) or _alike(olds[-1], news[-1])


def _alike(one: str, other: str) -> bool:
    shorter, longer = sorted((one.lower(), other.lower()), key=len)
    return longer.startswith(shorter) or SequenceMatcher(None, one, other).ratio() >= _ALIKE
