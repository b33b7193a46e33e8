"""Suggest calls that would load everything. Each is tried before it is suggested.

A suggestion starts with one change (another root, a rule, a submodule, or none), which must load more tensors and lose none.
Then further changes are added for the remaining problems: more rules, policies for shapes, and names to exclude or allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from ..names._generalise import numbered
from ..names._parts import notes_on_parts, parts_of
from ..names._wrappers import bare
from ..tensors._step import Mismatch
from ._attempt import Attempt, Proposal
from ._best_rule import best_rules, cuts

if TYPE_CHECKING:
    from ._report import LoadReport

# Limits for the patterns and rules of one call, so that it stays readable.
_MOST_PATTERNS = 4
_MOST_RULES = 3
# A convolution with more input channels than these is not the first one, whose input is an image.
_IMAGE_CHANNELS = 4
# A longer call would be cut off when it is printed.
LONGEST = 400
# `infer` is called only for up to this number of names, so that an error is not delayed.
_MOST_INFERRED = 5_000

Works = Callable[[Mapping[str, Any]], bool]


class Suggestion(NamedTuple):
    """A call that would work: `text` says what is wrong, and `solves` is the number of problems it solves."""

    text: str
    call: str
    solves: int


def suggest(
    report: LoadReport, attempt: Attempt, works: Works = lambda arguments: True, known: Sequence[Proposal] = ()
) -> list[Suggestion]:
    """Return calls that would load everything, the best first. Each was tried; `works` tries one with its arguments.

    Nothing else is suggested if one of the `known` proposals works: they do not guess.
    """
    found = list(_working(known, report, attempt, works))
    if found:
        return found
    openings = list(_openings(report, attempt))
    foreseen = attempt()
    if foreseen is not None and foreseen.ok:
        openings = [_WRAPPED]
    elif report.mismatched:
        openings.append(_NO_CHANGE)
    found = list(_working(openings, report, attempt, works))
    found.sort(key=lambda one: ("allow_" in one.call, -one.solves))
    return found or _suggest_match(report, attempt) or list(_working([_NO_CHANGE], report, attempt, works))


def _working(changes: Iterable[Proposal], report: LoadReport, attempt: Attempt, works: Works) -> Iterator[Suggestion]:
    """Return suggestions for the proposals that can be completed and work, each call once."""
    seen: set[str] = set()
    for change in changes:
        whole = _completed(change, report, attempt)
        if whole is None:
            continue
        arguments = attempt.needed(whole.arguments)
        call = attempt.call(arguments)
        if call not in seen and len(call) <= LONGEST and works(arguments):
            seen.add(call)
            yield Suggestion(whole.text, call, _problems(report))


def _completed(change: Proposal, before: LoadReport, attempt: Attempt) -> Proposal | None:
    """Add everything to a proposal that a load without problems needs; None if that is not possible."""
    if "into" in change.arguments and "into" in attempt.fixed:
        return None
    now = attempt(**change.arguments)
    if now is None or (change.arguments and not _is_better(now, before, change)):
        return None
    texts, arguments, useless = [change.text], change.arguments, None
    for step in (*[_another_rule] * _MOST_RULES, shape_fixes, _included, _allowed):
        if now.ok:
            break
        if step is useless:
            continue
        more = step(now, attempt, arguments)
        merged = None if more is None else Attempt({}, {}, arguments).arguments(more.arguments)
        then = None if merged is None else attempt(**merged)
        if more is None or merged is None or then is None or _problems(then) >= _problems(now) or _is_less(then, now):
            useless = step
            continue
        if step is not _another_rule or len(then.loaded) > len(now.loaded):
            texts, arguments, now = [*texts, more.text], merged, then
    gained = len(now.loaded) > (len(before.loaded) if change.arguments else 0)
    text = "; ".join(filter(None, texts))
    return Proposal(text[:1].upper() + text[1:], arguments) if now.ok and gained else None


def _is_better(now: LoadReport, before: LoadReport, change: Proposal) -> bool:
    """Whether more tensors are loaded, and none is lost."""
    kept = not before.loaded if "into" in change.arguments else set(before.loaded) <= set(now.loaded)
    return kept and len(now.loaded) + len(now.mismatched) > len(before.loaded) + len(before.mismatched)


def _is_less(then: LoadReport, now: LoadReport) -> bool:
    """Whether fewer tensors would be loaded."""
    return len(then.loaded) < len(now.loaded)


def _problems(report: LoadReport) -> int:
    return len(report.missing_keys) + len(report.unexpected_keys) + len(report.mismatched) + len(report.errors)


# The first change of a suggestion.


_NO_CHANGE = Proposal("", {})
_WRAPPED = Proposal("the names differ only in wrapper prefixes (module., _orig_mod. …)", {})


def _openings(report: LoadReport, attempt: Attempt) -> Iterator[Proposal]:
    missing = [*report.missing_keys, *(name for name in report.excluded if name in attempt.slots)]
    yield from _roots(missing, attempt)
    yield from _renamed(missing, _left(report, attempt))


def _left(report: LoadReport, attempt: Attempt) -> list[str]:
    """Return the source's names that were selected but not loaded."""
    used = {*report.renamed, *report.excluded, *(name for one in report.adapted for name in one.sources)}
    used |= set(report.loaded) - set(report.renamed.values())
    return [name for name in attempt.given if name not in used]


def _roots(missing: Collection[str], attempt: Attempt) -> Iterator[Proposal]:
    """Propose other state dicts of the source that contain missing names."""
    wanted = set(map(bare, missing))
    for root, values in attempt.roots.items() if "root" not in attempt.fixed else ():
        solves = sum(bare(name) in wanted for name in values)
        if solves:
            text = f"{root!r} in the source has {solves:,} of {len(missing):,} missing names"
            yield Proposal(text, {"root": root})


def _renamed(missing: Collection[str], unexpected: Collection[str], *, more: bool = False) -> list[Proposal]:
    """Propose the rule that gives the most missing names; several rules if each would give all."""
    if not (missing and unexpected):
        return []
    skip = parts_of(unexpected)
    best = best_rules(missing, [name for name in unexpected if name not in skip])
    others = f", one of {len(best)} prefixes with these names" if len(best) > 1 else ""
    changes = []
    for rule, solves in best:
        old, new = str(rule.sources[0]), str(rule.targets[0])
        some = f"{solves:,} more" if more else f"{solves:,} of {len(missing):,} missing names"
        text = f"{some} are in the source as {old}{others}"
        into = new.removesuffix(".{*p}")
        if old == "{*p}" and "{" not in into:
            changes.append(Proposal(text, {"into": into}))
        changes.append(Proposal(text, {"rename": str(rule)}))
    return changes[:1] if changes and "into" in changes[0].arguments else changes


# The further changes of a suggestion.


def _another_rule(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Proposal | None:
    changes = _renamed(now.missing_keys, _left(now, attempt), more=True)
    return changes[0] if len(changes) == 1 and "rename" in changes[0].arguments else None


def _included(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Proposal | None:
    """Propose to include only names with the prefix that a rule removes, if the only problem is other names."""
    rule = arguments.get("rename")
    head = rule.partition(".{*p} -> ")[0] if isinstance(rule, str) else ""
    alone = now.unexpected_keys and not (now.missing_keys or now.mismatched or now.errors)
    return (
        Proposal("", {"include": head})
        if alone and head and "{" not in head and not attempt.options.get("include")
        else None
    )


def _allowed(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Proposal | None:
    """Propose to allow the missing and unexpected names.

    Says so if most of the model would not be loaded; if the source has other tensors, they belong there under other names.
    """
    missing, unexpected = now
    mostly = len(missing) > len(now.loaded)
    if now.errors or now.mismatched or (mostly and unexpected):
        return None
    if missing and unexpected and notes_on_parts(missing, unexpected, parts_of(unexpected), parts_of(missing)):
        return None
    options: dict[str, Any] = {}
    for names, argument in ((missing, "allow_missing"), (unexpected, "allow_unexpected")):
        patterns = list(dict.fromkeys(_unloaded(names, now.loaded)))
        if len(patterns) > _MOST_PATTERNS:
            return None
        if patterns:
            options[argument] = patterns[0] if len(patterns) == 1 else patterns
    share = f" ({len(missing):,} of {len(missing) + len(now.loaded):,} tensors would not be loaded)" if mostly else ""
    return Proposal(f"if {'the rest' if arguments else 'this'} is expected{share}", options)


def _unloaded(names: Collection[str], loaded: Iterable[str]) -> Iterator[str]:
    """Return, for each name, the highest module above it into which nothing was loaded, or the name itself."""
    shared = {"", *(head for name in loaded for head, _ in cuts(name))} if names else set()
    for name in names:
        # A call of `cuts` for each of 100,000 names takes three times as long.
        place = name.find(".")
        while place >= 0 and name[:place] in shared:
            place = name.find(".", place + 1)
        yield name if place < 0 else name[:place]


def _suggest_match(report: LoadReport, attempt: Attempt) -> list[Suggestion]:
    """Suggest `match` if it would find a place for more names."""
    from ..inferring import infer

    few = len(attempt.given) + len(attempt.slots) <= _MOST_INFERRED
    if not (report.missing_keys and report.unexpected_keys and few) or "into" in attempt.fixed:
        return []
    inference = infer(attempt.slots, attempt.given)
    now = Attempt(attempt.given, attempt.slots)(rename=inference.key_map)
    if now is None or not _is_better(now, report, _NO_CHANGE):
        return []
    root = attempt.fixed.get("root")
    text = "Names differ; try to match by name, shape and order"
    return [
        Suggestion(text, attempt.call({"root": root} if root else {}, infer=True), len(now.loaded) - len(report.loaded))
    ]


# Integer buffers that a model computes from its size: position_ids, relative_position_index. Its own values are right.
_INDICES = re.compile(r"pos\w*_(?:ids|index)\Z")
# The rows of these tensors are tokens, so the common rows are the same tokens in a larger vocabulary.
_VOCABULARY = re.compile(r"emb|wte|vocab|lm_head|(?:\A|[._])tok(?:ens?)?(?:[._]|\Z)")


def shape_fixes(now: LoadReport, attempt: Attempt, arguments: Mapping[str, Any]) -> Proposal | None:
    """Return arguments that make all mismatched tensors fit; None if the shapes of one do not determine how."""
    reshaped = {one.name: how for one in now.mismatched if (how := _reshaped(one))}
    rest = [one for one in now.mismatched if one.name not in reshaped]
    policies = _policies(rest)
    if not now.mismatched or policies is None or (policies and isinstance(attempt.options.get("mismatched"), str)):
        return None
    said: dict[str, Any] = {}
    texts = []
    if policies:
        said["mismatched"] = policies
        texts.append(f"{len(rest):,} of {len(now.mismatched):,} mismatched tensors can be skipped or adapted")
    if reshaped:
        sources = {slot: source for source, slot in now.renamed.items()}
        rules = [f"{numbered(bare(sources.get(slot, slot)), bare(slot))} | {how}" for slot, how in reshaped.items()]
        rules = list(dict.fromkeys(rules))
        if len(rules) > _MOST_PATTERNS:
            return None
        said["rename"] = rules[0] if len(rules) == 1 else rules
        texts.append(
            f"{len(reshaped):,} of {len(now.mismatched):,} mismatched tensors have the same elements in another shape"
        )
    return Proposal("; ".join(texts), said)


def in_common(found: Any, expected: Sequence[int]) -> str:
    """Return a text that says what two shapes have in common, or an empty one."""
    if isinstance(found, str):
        return ""
    if len(found) == 2 and tuple(found[::-1]) == tuple(expected):
        return "transposed"
    return "same number of elements" if prod(found) == prod(expected) else ""


def _reshaped(one: Mismatch) -> str | None:
    """Return the operation for a tensor whose shape differs only in dimensions of size 1, or is transposed."""
    if isinstance(one.found, str) or one.note:
        return None
    if len(one.found) == 2 and one.found[::-1] == one.expected:
        return "transpose"
    if [size for size in one.found if size != 1] != [size for size in one.expected if size != 1]:
        return None
    return " ".join(map(str, ("reshape", *one.expected)))


def _policies(mismatched: Sequence[Mismatch]) -> dict[str, str] | None:
    """Return a policy for each module; None if one does not have any, or if there are too many to list."""
    modules: dict[str, list[Mismatch]] = {}
    for one in mismatched:
        modules.setdefault(one.name.rpartition(".")[0], []).append(one)
    words = {(one.found[0], one.expected[0]) for some in modules.values() for one in some if _is_vocabulary(one, some)}
    patterns: dict[str, str] = {}
    for module, some in modules.items():
        chosen = [_policy(one, words) for one in some]
        if None in chosen:
            return None
        if chosen == ["skip"] * len(chosen) and module:
            patterns[module] = "skip"
        else:
            patterns.update((one.name, str(policy)) for one, policy in zip(some, chosen))
    return patterns if len(patterns) <= _MOST_PATTERNS else None


def _is_vocabulary(one: Mismatch, beside: Sequence[Mismatch]) -> bool:
    alone = len(beside) == 1 and not isinstance(one.found, str) and len(one.found) == 2
    return alone and _VOCABULARY.search(one.name) is not None and _differing(one) == [0]


def _policy(one: Mismatch, words: set[tuple[Any, int]]) -> str | None:
    """Return the usual policy for a tensor of these shapes."""
    differ = _differing(one)
    if one.note or not differ:
        return None
    if _INDICES.search(one.name):
        return "skip"
    if "pos" in one.name and len(differ) <= 2:
        return "interpolate"
    if differ == [1] and len(one.expected) > 2:
        return "channels" if min(int(one.found[1]), one.expected[1]) <= _IMAGE_CHANNELS else None
    if differ != [0]:
        return None
    return "slice" if (one.found[0], one.expected[0]) in words else "skip"


def _differing(one: Mismatch) -> list[int]:
    """Return the dimensions in which the shapes differ; empty if the numbers of dimensions differ."""
    if isinstance(one.found, str) or len(one.found) != len(one.expected):
        return []
    return [n for n, (a, b) in enumerate(zip(one.found, one.expected)) if a != b]
