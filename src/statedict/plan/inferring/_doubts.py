"""Doubt matches that the rest of the two models speaks against: tensors left over, other numbers, or equal modules.

`doubted` gives such matches a reason that is not certain; it changes no match.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from statedict.state import parents

from ..names._wrappers import bare
from ._consistent import Pair, Shapes, contradicted
from ._modules import Matched
from ._nodes import Numbers, bare_shape, numbers, pattern
from ._reasons import CONTRARY, LEFT_OVER, OTHER_SHAPE, SAME_NAME, TOWERS, UNEVEN, UNWRAPPED
from ._towers import towers, untold
from ._uneven import families, members, uneven
from ._words import agree


def doubted(matches: list[Matched], sides: tuple[Shapes, Shapes], left: tuple[list[str], list[str]]) -> list[Matched]:
    """Doubt matches in numbered modules of which only some have tensors left over, and in equal modules that no word tells
    apart: another one may be meant.

    A tensor counts only if the other side has others of its shape: the rest are buffers of another implementation.
    """
    known = [{bare_shape(shape) for shape in side.values() if shape is not None} for side in sides]
    rivals = [
        [name for name in names if (shape := side[name]) is not None and bare_shape(shape) in others]
        for names, side, others in zip(left, sides, reversed(known))
    ]
    shapes = {bare_shape(shape) for names, side in zip(rivals, sides) for name in names if (shape := side[name])}
    alone = {name for name, shape in sides[0].items() if shape and bare_shape(shape) in shapes}
    doubtful = [uneven(side, names) for side, names in zip(sides, rivals)]
    pairs = [(old, new) for match in matches for old in match.sources for new in match.targets]
    equal = untold(pairs, (towers(sides[0]), towers(sides[1])))
    singles = [match for match in matches if len(match.sources) == len(match.targets) == 1]
    certain, unsure = (
        [(m.sources[0], m.targets[0]) for m in singles if m.reason.certain is is_certain]
        for is_certain in (True, False)
    )
    contrary = contradicted(certain, sides, complete=rivals == [[], []], doubtful=unsure)
    contrary |= _misnumbered(matches, sides)
    while new := _after(contrary, matches, sides[0]) - contrary:
        contrary |= new

    def checked(match: Matched) -> Matched:
        if not match.reason.certain:
            return match
        if (match.sources[0], match.targets[0]) in contrary:
            return match._replace(reason=CONTRARY)
        if match.reason in (SAME_NAME, UNWRAPPED):
            return match
        if any(not some.isdisjoint(parents(name)) for some, names in zip(equal, match[:2]) for name in names):
            return match._replace(reason=TOWERS)
        if match.sources[0] in alone and not agree(match.sources[0], match.targets[0]):
            return match._replace(reason=LEFT_OVER)
        ours, theirs = ({family for name in names for family in families(name)} for names in match[:2])
        certain = ours.isdisjoint(doubtful[0]) and theirs.isdisjoint(doubtful[1])
        return match if certain else match._replace(reason=UNEVEN)

    return list(map(checked, matches))


def _misnumbered(matches: Iterable[Matched], sides: tuple[Shapes, Shapes]) -> set[Pair]:
    """Return equal names in modules that are numbered otherwise on the other side: 0, 2, 4 there, or with other shapes.

    Also if one of them has another name there, as in `in`, `layers.0` for `layers.0`, `layers.1`; it is returned, too.
    """
    places = [{(pattern(bare(name)), shape) for name, shape in side.items()} for side in sides]
    used = [_numbers_used(map(bare, side)) for side in sides]
    both = used[0].keys() & used[1].keys()
    moved = {f for f in both if any(a != b for a, b in zip(sorted(used[0][f]), sorted(used[1][f])))}
    equal: dict[Pair, set[str]] = {}
    strays: dict[Pair, set[str]] = {}
    for match in matches:
        for old, new in product(match.sources, match.targets):
            if match.reason not in (SAME_NAME, UNWRAPPED, OTHER_SHAPE):
                strays[old, new] = (families(bare(old)) ^ families(bare(new))) & both
                continue
            equal[old, new] = families(bare(new))
            shapes = sides[0][old], sides[1][new]
            if shapes[0] != shapes[1] and any((pattern(bare(new)), shapes[n]) in places[1 - n] for n in (0, 1)):
                moved |= equal[old, new]
    stray, kept = (set[str]().union(*some.values()) for some in (strays, equal))
    wrong = {pair for pair, some in equal.items() if not some.isdisjoint(moved | stray)}
    return wrong | {pair for pair, some in strays.items() if not some.isdisjoint(kept)}


def _numbers_used(names: Iterable[str]) -> dict[str, set[Numbers]]:
    """Return the numbers in each family of modules."""
    found: dict[str, set[Numbers]] = {}
    for name in names:
        for family, module in members(name):
            found.setdefault(family, set()).add(numbers(module.rpartition(".")[2]))
    return found


def _after(contrary: set[Pair], matches: Iterable[Matched], shapes: Shapes) -> set[Pair]:
    """Return the certain pairs that were made beside a contrary pair: of the same shape, or in the same module."""

    def place(old: str, new: str) -> set[object]:
        modules = ((tuple(name.split(".")[:-n]) for name in (old, new)) for n in (1, 2))
        return {(*next(modules), 1), (*next(modules), shapes[old])}

    places = set[object]().union(*(place(*pair) for pair in contrary))
    pairs = ((match.sources[0], match.targets[0]) for match in matches if match.reason.certain)
    return {pair for pair in pairs if not places.isdisjoint(place(*pair))}
