"""The one rule that renames most unexpected names to missing ones, in time that grows with their number.

Two names that end alike and begin differently vote for a rule that exchanges the one beginning for the other. The votes of
some dozens of missing names are counted, and the rules with the most are checked against all names.

That two names end in `weight` or `bias` says little: every layer has those. So a rule that exchanges one module for another
needs more (`_is_told`): several modules that agree, or modules beside each other whose names are alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from difflib import SequenceMatcher
from typing import NamedTuple

from ..names._generalise import heads
from ..names._keymap import KeyMap
from ..names._rule import Rule

# So many missing names vote, spread evenly; so many rules, and those with as many votes, are compared on so many names.
_VOTERS = 64
_COUNTED = 10
_SAMPLE = 2000
# All tails of a name together are as long as the square of its length: a hostile one must not cost that.
_MOST_CUTS = 30
# More rules that fit equally would not be read.
_MOST_RIVALS = 4
_ALIKE = 0.6


class Best(NamedTuple):
    """A rule that makes missing names of `solves` unexpected ones."""

    rule: Rule
    solves: int


def best_rule(missing: Collection[str], unexpected: Collection[str]) -> Best | None:
    """The one rule that would rename most unexpected names to missing ones; None where there is none, or no clear one.

    >>> best = best_rule(["layers.0.w", "layers.1.w"], ["model.layers.0.w", "model.layers.1.w", "step"])
    >>> str(best.rule), best.solves
    ('model.{*p} -> {*p}', 2)
    """
    found = best_rules(missing, unexpected)
    return found[0] if len(found) == 1 else None


def best_rules(missing: Collection[str], unexpected: Collection[str]) -> list[Best]:
    """The rule of `best_rule`, or several where each alone would bring all of the missing names.

    >>> [str(best.rule) for best in best_rules(["a.w", "b.w"], ["query.a.w", "query.b.w", "key.a.w", "key.b.w"])]
    ['query.{*p} -> {*p}', 'key.{*p} -> {*p}']
    """
    wanted, some = set(missing), list(unexpected)[:: max(len(unexpected) // _SAMPLE, 1)]
    counted = [Best(rule, _count(rule, wanted, some)) for rule in _votes(list(missing), unexpected)]
    counted = [one for one in counted if one.solves and _is_told(one, wanted, unexpected)]
    whole = [one for one in counted if one.solves == len(wanted)]
    if 1 < len(whole) <= _MOST_RIVALS and len({one.rule.targets for one in whole}) == 1:
        return whole
    clear = [one for one in counted if not any(_rivals(one, other) for other in counted)]
    best = max(clear, key=lambda best: best.solves, default=None)
    return [best._replace(solves=_count(best.rule, wanted, unexpected))] if best else []


def cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two at each of its first dots, the longest tail first."""
    yield "", name
    place = name.find(".")
    for _ in range(_MOST_CUTS):
        if place < 0:
            break
        yield name[:place], name[place + 1 :]
        place = name.find(".", place + 1)


def _rivals(one: Best, other: Best) -> bool:
    """Whether the other explains the same names at least as well: then `query -> q` may as well be `key -> q`."""
    shared = one.rule.sources == other.rule.sources or one.rule.targets == other.rule.targets
    return one.rule != other.rule and shared and other.solves >= one.solves


def _votes(missing: list[str], unexpected: Collection[str]) -> list[Rule]:
    """The rules for which most of some missing names vote."""
    voters = missing[:: max(len(missing) // _VOTERS, 1)]
    tails: dict[str, list[str]] = {tail: [] for name in voters for _, tail in cuts(name)}
    for name in unexpected:
        for _, tail in cuts(name):
            if tail in tails and len(tails[tail]) < 8:  # more would only say the same
                tails[tail].append(name)
    votes: Counter[Rule] = Counter()
    for name in voters:
        alike = next((tails[tail] for _, tail in cuts(name) if tails[tail]), [])
        votes.update(heads(other, name) for other in alike)
    least = min([count for _, count in votes.most_common(_COUNTED)], default=0)
    return [rule for rule, count in votes.most_common(4 * _COUNTED) if count >= least]


def _count(rule: Rule, wanted: Collection[str], unexpected: Iterable[str]) -> int:
    """How many unexpected names would be wanted ones."""
    key_map = KeyMap(rule)
    return sum(key_map(name) in wanted for name in unexpected)


def _is_told(best: Best, wanted: Collection[str], unexpected: Collection[str]) -> bool:
    """Whether more than an ending that all layers have speaks for a rule."""
    olds, news = (str(side[0]).split(".")[:-1] for side in (best.rule.sources, best.rule.targets))
    shorter = min(len(olds), len(news))
    if olds[:shorter] == news[:shorter]:
        return True  # a prefix, or a component, that is added or dropped
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
