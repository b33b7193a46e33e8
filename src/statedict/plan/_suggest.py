"""What one change would solve most problems: told from the names alone, in time that grows with their number.

Two names that end alike and begin differently vote for a rule that exchanges the one beginning for the other. The votes of
some dozens of missing names are counted, and the rules with the most are checked against all names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ._generalise import heads
from ._keymap import KeyMap
from ._rule import Rule
from ._step import Mismatch
from ._wrappers import bare

if TYPE_CHECKING:
    from ._report import LoadReport

# So many missing names vote, spread evenly; so many rules, and those with as many votes, are compared on so many names.
_VOTERS = 64
_COUNTED = 10
_SAMPLE = 2000
# All tails of a name together are as long as the square of its length: a hostile one must not cost that.
_MOST_CUTS = 30
# Patterns that a person would still read in one call.
_MOST_PATTERNS = 4


class Suggestion(NamedTuple):
    """A change that would help: what is the matter, the call that does it, and how many problems it would solve."""

    text: str
    call: str
    solves: int


class Best(NamedTuple):
    """A rule that makes missing names of `solves` unexpected ones."""

    rule: Rule
    solves: int


def suggest(report: LoadReport) -> list[Suggestion]:
    """The changes that would help, the one that solves most first."""
    missing, unexpected = report.missing_keys, report.unexpected_keys
    found = [
        *report.roots,
        *_wrapper(missing, unexpected),
        *_renamed(missing, unexpected),
        *_policies(report.mismatched),
    ]
    found.sort(key=lambda one: -one.solves)
    if missing and unexpected and not any(one.solves == len(missing) for one in found):
        found.append(
            Suggestion("names, shapes and order may tell which is which", "print(statedict.match(model, source))", 0)
        )
    return found or _allowing(report)


def nested_roots(given: Mapping[str, Any], missing: Collection[str]) -> list[Suggestion]:
    """Where the source is a checkpoint with the state dict inside: the root under which the missing names are."""
    if not missing:
        return []
    wanted = set(map(bare, missing))
    inside = {name: value for name, value in given.items() if isinstance(value, Mapping)}
    inside |= {f"{a}/{b}": v for a, value in list(inside.items()) for b, v in value.items() if isinstance(v, Mapping)}
    found = []
    for root, value in inside.items():
        solves = sum(bare(str(name)) in wanted for name in value)
        text = f"{root!r} in the source holds {solves:,} of {len(missing):,} missing names"
        found += [Suggestion(text, _call(f"root={root!r}"), solves)] if solves else []
    return found


def best_rule(missing: Collection[str], unexpected: Collection[str]) -> Best | None:
    """The one rule that would rename most unexpected names to missing ones; None where there is none, or no clear one.

    >>> best = best_rule(["layers.0.w", "layers.1.w"], ["model.layers.0.w", "model.layers.1.w", "step"])
    >>> str(best.rule), best.solves
    ('model.{*p} -> {*p}', 2)
    """
    wanted, some = set(missing), list(unexpected)[:: max(len(unexpected) // _SAMPLE, 1)]
    counted = [Best(rule, _count(rule, wanted, some)) for rule in _votes(list(missing), unexpected)]
    clear = [one for one in counted if not any(_rivals(one, other) for other in counted)]
    best = max(clear, key=lambda best: best.solves, default=None)
    return best and best._replace(solves=_count(best.rule, wanted, unexpected))


def _rivals(one: Best, other: Best) -> bool:
    """Whether the other explains the same names at least as well: then `query -> q` may as well be `key -> q`."""
    shared = one.rule.sources == other.rule.sources or one.rule.targets == other.rule.targets
    return one.rule != other.rule and shared and other.solves >= one.solves


def _votes(missing: list[str], unexpected: Collection[str]) -> list[Rule]:
    """The rules for which most of some missing names vote."""
    voters = missing[:: max(len(missing) // _VOTERS, 1)]
    tails: dict[str, list[str]] = {tail: [] for name in voters for _, tail in _cuts(name)}
    for name in unexpected:
        for _, tail in _cuts(name):
            if tail in tails and len(tails[tail]) < 8:  # more would only say the same
                tails[tail].append(name)
    votes: Counter[Rule] = Counter()
    for name in voters:
        alike = next((tails[tail] for _, tail in _cuts(name) if tails[tail]), [])
        votes.update(heads(other, name) for other in alike)
    least = min([count for _, count in votes.most_common(_COUNTED)], default=0)
    return [rule for rule, count in votes.most_common(4 * _COUNTED) if count >= least]


def _count(rule: Rule, wanted: Collection[str], unexpected: Iterable[str]) -> int:
    """How many unexpected names would be wanted ones."""
    key_map = KeyMap(rule)
    return sum(key_map(name) in wanted for name in unexpected)


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """A name cut in two at each of its first dots, the longest tail first."""
    yield "", name
    place = name.find(".")
    for _ in range(_MOST_CUTS):
        if place < 0:
            break
        yield name[:place], name[place + 1 :]
        place = name.find(".", place + 1)


def _wrapper(missing: Collection[str], unexpected: Collection[str]) -> list[Suggestion]:
    without = {bare(name) for name in unexpected}
    solves = sum(bare(name) in without for name in missing)
    if not solves or not any(bare(name) != name for name in (*missing, *unexpected)):
        return []
    text = f"{solves:,} of {len(missing):,} missing names are there, wrapped (module., _orig_mod. …) or unwrapped"
    return [Suggestion(text, "statedict.load_state_dict(model, source)", solves)]


def _renamed(missing: Collection[str], unexpected: Collection[str]) -> list[Suggestion]:
    best = best_rule(missing, unexpected) if missing and unexpected else None
    if best is None or not best.solves:
        return []
    old, new = str(best.rule.sources[0]), str(best.rule.targets[0])
    into = new.removesuffix(".{*p}")
    call = _call(f"into={into!r}" if old == "{*p}" and "{" not in into else f'rename="{best.rule}"')
    return [Suggestion(f"{best.solves:,} of {len(missing):,} missing names are there as {old}", call, best.solves)]


def _policies(mismatched: Collection[Mismatch]) -> list[Suggestion]:
    """A policy for each mismatch whose shapes tell what it is."""
    known = {one.name for one in mismatched}
    chosen = {one.name: policy for one in mismatched if not one.note and (policy := _policy(one, known))}
    if not chosen:
        return []
    patterns: dict[str, str] = {}
    for name, policy in chosen.items():
        patterns.setdefault(name.rpartition(".")[0] or name if policy == "skip" else name, policy)
    shown = ", ".join(f"{name!r}: {policy!r}" for name, policy in list(patterns.items())[:_MOST_PATTERNS])
    more = ", …" if len(patterns) > _MOST_PATTERNS else ""
    text = f"{len(chosen):,} of {len(mismatched):,} mismatched tensors can be left out or made to fit"
    return [Suggestion(text, _call(f"mismatched={{{shown}{more}}}"), len(chosen))]


def _policy(one: Mismatch, mismatched: Collection[str]) -> str | None:
    """What people mostly do with a tensor of these shapes."""
    found, expected = one.found, one.expected
    if isinstance(found, str) or len(found) != len(expected):
        return None
    differ = [n for n, (a, b) in enumerate(zip(found, expected)) if a != b]
    if "pos" in one.name and len(differ) <= 2:
        return "interpolate"
    if differ == [1] and len(found) > 2:
        return "channels"
    if differ != [0]:
        return None
    # A table of embeddings has no bias; a classifier has one, of the same length.
    module = one.name.rpartition(".")[0]
    alone = len(found) == 2 and f"{module}.bias" not in mismatched
    return "slice" if alone else "skip"


def _allowing(report: LoadReport) -> list[Suggestion]:
    """The patterns that say that it is all right as it is."""
    if report.errors or report.mismatched or not report.loaded:
        return []
    said = []
    for names, argument in ((report.missing_keys, "allow_missing"), (report.unexpected_keys, "allow_unexpected")):
        patterns = list(dict.fromkeys(_apart(names, report.loaded)))
        if len(patterns) > _MOST_PATTERNS:
            return []
        said += [f"{argument}={patterns[0] if len(patterns) == 1 else patterns!r}"] if patterns else []
    text = "if it is as it should be, say so"
    return (
        [Suggestion(text, _call(", ".join(said)), len(report.missing_keys) + len(report.unexpected_keys))]
        if said
        else []
    )


def _apart(names: Collection[str], loaded: Iterable[str]) -> Iterator[str]:
    """For each name the highest module above it that nothing was loaded into, or the name itself."""
    shared = {head for name in loaded for head, _ in _cuts(name)} if names else set()
    for name in names:
        yield next((head for head, _ in _cuts(name) if head and head not in shared), name)


def _call(arguments: str) -> str:
    return f"load_state_dict(model, source, {arguments})"
