"""What would help: calls that were tried, after each of which nothing is wrong.

A suggestion begins with one change (another root, a rule, a sub-module, or none), which must load more and lose nothing.
What is left is dealt with in turn: more rules, tensors that can be made to fit, and names that are left out or allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..names._parts import parts_of, told
from ..names._wrappers import bare
from ._attempt import Attempt, Change, written
from ._best_rule import best_rules, cuts
from ._fitting_calls import fitted

if TYPE_CHECKING:
    from ._report import LoadReport

# Patterns that a person would still read in one call, and rules.
_MOST_PATTERNS = 4
_MOST_RULES = 3
# A longer call would be cut where it is printed.
LONGEST = 400
# So many names are compared by shape and order in well under a second.
_MOST_INFERRED = 5_000

Works = Callable[[Mapping[str, Any]], bool]


class Suggestion(NamedTuple):
    """A change that would help: what is the matter, the call that does it, and how many problems it would solve."""

    text: str
    call: str
    solves: int


def suggest(report: LoadReport, attempt: Attempt, works: Works = lambda arguments: True) -> list[Suggestion]:
    """The calls that would load everything, the best first. Each was tried, with `works` too, which gets the arguments."""
    openings = list(_openings(report, attempt))
    foreseen = attempt()
    if foreseen is not None and foreseen.ok:
        openings = [_WRAPPED]
    elif report.mismatched:
        openings.append(_NOTHING)
    found = list(_working(openings, report, attempt, works))
    found.sort(key=lambda one: ("allow_" in one.call, -one.solves))
    return found or _look(report, attempt) or list(_working([_NOTHING], report, attempt, works))


def _working(changes: Iterable[Change], report: LoadReport, attempt: Attempt, works: Works) -> Iterator[Suggestion]:
    """The changes that can be completed and work, each call once."""
    seen: set[str] = set()
    for change in changes:
        whole = _completed(change, report, attempt)
        if whole is None:
            continue
        arguments = attempt.needed(whole.arguments)
        call = written(arguments)
        if call not in seen and len(call) <= LONGEST and works(arguments):
            seen.add(call)
            yield Suggestion(whole.text, call, _problems(report))


def _completed(change: Change, before: LoadReport, attempt: Attempt) -> Change | None:
    """The change with all else that is needed for a load after which nothing is wrong; None where that is not known."""
    if "into" in change.arguments and "into" in attempt.fixed:
        return None
    now = attempt(**change.arguments)
    if now is None or (change.arguments and not _is_better(now, before, change)):
        return None
    texts, arguments = [change.text], change.arguments
    for step in (*[_another_rule] * _MOST_RULES, fitted, _included, _allowed):
        if now.ok:
            break
        more = step(now, attempt, arguments)
        merged = None if more is None else Attempt({}, {}, arguments).arguments(more.arguments)
        then = None if merged is None else attempt(**merged)
        if more is None or merged is None or then is None or _problems(then) >= _problems(now):
            continue
        if step is not _another_rule or len(then.loaded) > len(now.loaded):
            texts, arguments, now = [*texts, more.text], merged, then
    gained = len(now.loaded) > (len(before.loaded) if change.arguments else 0)
    return Change("; ".join(filter(None, texts)), arguments) if now.ok and gained else None


def _is_better(now: LoadReport, before: LoadReport, change: Change) -> bool:
    """Whether more is loaded, and nothing is lost."""
    kept = not before.loaded if "into" in change.arguments else set(before.loaded) <= set(now.loaded)
    return kept and len(now.loaded) + len(now.mismatched) > len(before.loaded) + len(before.mismatched)


def _problems(report: LoadReport) -> int:
    return len(report.missing_keys) + len(report.unexpected_keys) + len(report.mismatched) + len(report.errors)


# how a suggestion begins


_NOTHING = Change("", {})
_WRAPPED = Change("the names are the same but for wrappers (module., _orig_mod. …)", {})


def _openings(report: LoadReport, attempt: Attempt) -> Iterator[Change]:
    missing = [*report.missing_keys, *(name for name in report.excluded if name in attempt.slots)]
    yield from _roots(missing, attempt)
    yield from _renamed(missing, _left(report, attempt))


def _left(report: LoadReport, attempt: Attempt) -> list[str]:
    """The source's names that took part and were not loaded, as the source has them."""
    used = {*report.renamed, *report.excluded, *(name for one in report.adapted for name in one.sources)}
    used |= set(report.loaded) - set(report.renamed.values())
    return [name for name in attempt.given if name not in used]


def _roots(missing: Collection[str], attempt: Attempt) -> Iterator[Change]:
    """Other state dicts of the source in which the missing names are."""
    wanted = set(map(bare, missing))
    for root, values in attempt.roots.items() if "root" not in attempt.fixed else ():
        solves = sum(bare(name) in wanted for name in values)
        if solves:
            text = f"{root!r} in the source holds {solves:,} of {len(missing):,} missing names"
            yield Change(text, {"root": root})


def _renamed(missing: Collection[str], unexpected: Collection[str], *, more: bool = False) -> list[Change]:
    """The rule that brings most names to where they are missing; several, where each would bring all."""
    skip = parts_of(unexpected)
    best = best_rules(missing, [name for name in unexpected if name not in skip]) if missing and unexpected else []
    others = f", one of {len(best)} prefixes with these names" if len(best) > 1 else ""
    changes = []
    for rule, solves in best:
        old, new = str(rule.sources[0]), str(rule.targets[0])
        some = f"{solves:,} more" if more else f"{solves:,} of {len(missing):,} missing names"
        text = f"{some} are there as {old}{others}"
        into = new.removesuffix(".{*p}")
        if old == "{*p}" and "{" not in into:
            changes.append(Change(text, {"into": into}))
        changes.append(Change(text, {"rename": str(rule)}))
    return changes[:1] if changes and "into" in changes[0].arguments else changes


# how it goes on


def _another_rule(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Change | None:
    changes = _renamed(now.missing_keys, _left(now, attempt), more=True)
    return changes[0] if len(changes) == 1 and "rename" in changes[0].arguments else None


def _included(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Change | None:
    """Only what is below the prefix that a rule takes away, where all that is wrong are other names."""
    rule = arguments.get("rename")
    head = rule.partition(".{*p} -> ")[0] if isinstance(rule, str) else ""
    alone = now.unexpected_keys and not (now.missing_keys or now.mismatched or now.errors)
    return (
        Change("", {"include": head})
        if alone and head and "{" not in head and not attempt.options.get("include")
        else None
    )


def _allowed(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Change | None:
    """The patterns that say that it is all right as it is."""
    wholes = parts_of(now.unexpected_keys), parts_of(now.missing_keys)
    if now.errors or now.mismatched or told(now.missing_keys, now.unexpected_keys, *wholes):
        return None
    said: dict[str, Any] = {}
    for names, argument in ((now.missing_keys, "allow_missing"), (now.unexpected_keys, "allow_unexpected")):
        patterns = list(dict.fromkeys(_apart(names, now.loaded)))
        if len(patterns) > _MOST_PATTERNS:
            return None
        if patterns:
            said[argument] = patterns[0] if len(patterns) == 1 else patterns
    return Change(
        "if what is left is as it should be, say so" if arguments else "if it is as it should be, say so", said
    )


def _apart(names: Collection[str], loaded: Iterable[str]) -> Iterator[str]:
    """For each name the highest module above it that nothing was loaded into, or the name itself."""
    shared = {head for name in loaded for head, _ in cuts(name)} if names else set()
    for name in names:
        yield next((head for head, _ in cuts(name) if head and head not in shared), name)


def _look(report: LoadReport, attempt: Attempt) -> list[Suggestion]:
    """`match`, where it finds a place for names that have none."""
    from .._infer import infer

    few = len(attempt.given) + len(attempt.slots) <= _MOST_INFERRED
    if not (report.missing_keys and report.unexpected_keys and few) or "into" in attempt.fixed:
        return []
    inference = infer(attempt.slots, attempt.given)
    now = Attempt(attempt.given, attempt.slots)(rename=inference.key_map)
    if now is None or not _is_better(now, report, _NOTHING):
        return []
    root = attempt.fixed.get("root")
    call = f"print(statedict.match(model, source{f', root={root!r}' if root else ''}))"
    return [Suggestion("names, shapes and order may tell which is which", call, len(now.loaded) - len(report.loaded))]
