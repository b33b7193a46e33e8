"""Propose arguments that make mismatched tensors fit: a policy for each module, or a rule that reshapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from ..names._generalise import numbered
from ..names._wrappers import bare
from ..tensors._step import Mismatch
from ._attempt import Attempt, Proposal

if TYPE_CHECKING:
    from ._report import LoadReport

_MOST_PATTERNS = 4
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
    if "pos" in one.name and len(differ) <= 2:
        return "interpolate"
    if differ == [1] and len(one.expected) > 2:
        return "channels"
    if differ != [0]:
        return None
    return "slice" if (one.found[0], one.expected[0]) in words else "skip"


def _differing(one: Mismatch) -> list[int]:
    """Return the dimensions in which the shapes differ; empty if the numbers of dimensions differ."""
    if isinstance(one.found, str) or len(one.found) != len(one.expected):
        return []
    return [n for n, (a, b) in enumerate(zip(one.found, one.expected)) if a != b]
