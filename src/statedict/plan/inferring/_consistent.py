"""Find matches that contradict each other, as they do if different tensors are missing on the two sides.

Three things are the same everywhere in a model: the tensors of one module are in one module; what corresponds to a name in
one layer corresponds to it in the others; and equal layers are in the same order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from statedict.state import parents

from ..operations._specs import Shape
from ._classes import LAYER
from ._nodes import numbers, pattern
from ._words import ORDINALS, alike, distinctive, words

Pair = tuple[str, str]
Shapes = Mapping[str, Shape | None]
_PROJECTIONS = ("query", "key", "value", "output")


def contradicted(
    pairs: Sequence[Pair], sides: tuple[Shapes, Shapes], complete: bool, doubtful: Sequence[Pair] = ()
) -> set[Pair]:
    """Return the pairs, of names of a source and a model, that contradict others, or `doubtful` ones; `sides` are the
    shapes of all names.

    `complete` says that no tensor is left over: then numbers may begin elsewhere on one side, as with layers 1 to 12.

    >>> pairs = [("h.0.a", "x.0.b"), ("h.1.a", "x.1.b"), ("h.2.a", "x.2.c")]
    >>> sides = {old: (3,) for old, _ in pairs}, {new: (3,) for _, new in pairs}
    >>> contradicted(pairs, sides, True) == {*pairs}
    True
    """
    partners = _partners([*pairs, *doubtful])
    wrong = {pair for pair in pairs if _divided(pair, partners) or _crossed(pair)}
    wrong |= _twisted([*pairs, *doubtful])
    if not complete:
        wrong |= _scattered([*pairs, *doubtful]) | _single(pairs, sides) | _renamed(pairs, sides)
    below: dict[Pair, list[Pair]] = {}
    for pair in pairs:
        for both in product(_paths(pair[0]), _paths(pair[1])):
            below.setdefault(both, []).append(pair)
    for layers, ordered in _equal_layers(partners[0], sides, complete):
        wrong |= set(_differing(layers, ordered, below))
    return wrong


_Partners = Mapping[str, list[str]]


def _partners(pairs: Sequence[Pair]) -> tuple[_Partners, _Partners]:
    """Return, for the modules of both sides, those that have the largest share of their tensors in common with them."""
    sizes = tuple(Counter(path for pair in pairs for path in _paths(pair[side])) for side in (0, 1))
    common = Counter(
        (one, other)
        for pair in pairs
        for one, other in product(*map(_paths, pair))
        if max(sizes[0][one], sizes[1][other]) < len(pairs)  # a module with all of them says nothing
    )
    share = {(one, other): n / (sizes[0][one] + sizes[1][other] - n) for (one, other), n in common.items()}
    best: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for both, value in share.items():
        for side in (0, 1):
            best[side][both[side]] = max(value, best[side].get(both[side], 0.0))
    found: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for (one, other), value in share.items():
        if value == best[0][one] == best[1][other]:
            found[0].setdefault(one, []).append(other)
            found[1].setdefault(other, []).append(one)
    return found


def _paths(name: str) -> list[str]:
    """Return a name and the modules above it; in `layer_1_mlp.weight`, the number ends the name of a module, too."""
    return list({name: None} | {path: None for path in parents(name) if path} | dict.fromkeys(_ends(name)))


def _ends(name: str) -> Iterator[str]:
    """Return the beginnings of a name up to each of its numbers."""
    return (name[: found.end()] for found in re.finditer(r"\d+(?=_)", name))


def _divided(pair: Pair, partners: tuple[_Partners, _Partners]) -> bool:
    """Whether a module above one name has its tensors in a module that the other name is not in."""
    return any(
        path in partners[side] and not any(p in _paths(pair[1 - side]) for p in partners[side][path])
        for side in (0, 1)
        for path in _paths(pair[side])
    )


def _twisted(pairs: Sequence[Pair]) -> set[Pair]:
    """Return the pairs in layers that correspond neither one to one nor in order, for the same tensor of each layer."""
    found: dict[tuple[Pair, Pair], dict[tuple[str, ...], list[Pair]]] = {}
    for pair in pairs:
        for both in product(*(filter(_numbered, _paths(name)) for name in pair)):
            families = _series(both[0]), _series(both[1])
            roles = pattern(pair[0][len(both[0]) :]), pattern(pair[1][len(both[1]) :])
            found.setdefault((families, roles), {}).setdefault(both, []).append(pair)
    wrong = set()
    for related in found.values():
        split = all(len({both[side] for both in related}) < len(related) for side in (0, 1))
        order = sorted((numbers(one)[-1], numbers(other)[-1]) for one, other in related)
        steps = {(b > a) - (b < a) for (_, a), (_, b) in pairwise(order)}
        if split or {1, -1} <= steps:
            wrong |= {pair for some in related.values() for pair in some}
    return wrong


def _scattered(pairs: Sequence[Pair]) -> set[Pair]:
    """Return the pairs in two layers each of which has as many tensors, or more, in another layer of the other side."""
    votes: dict[Pair, Counter[Pair]] = {}
    both = {pair: [*product(*(filter(_numbered, _paths(name)) for name in pair))] for pair in pairs}
    for layers in both.values():
        for one, other in layers:
            votes.setdefault((_series(one), _series(other)), Counter())[one, other] += 1
    wrong = set()
    for pair, layers in both.items():
        for one, other in layers:
            counts = votes[_series(one), _series(other)]
            own = counts[one, other]
            if all(
                any(
                    key[side] == (one, other)[side] and count >= own
                    for key, count in counts.items()
                    if key != (one, other)
                )
                for side in (0, 1)
            ):
                wrong.add(pair)
    return wrong


def _numbered(path: str) -> bool:
    return bool(numbers(path.rpartition(".")[2]))


def _renamed(pairs: Sequence[Pair], sides: tuple[Shapes, Shapes]) -> set[Pair]:
    """Return the pairs in modules that have other names, although the other side has a module of that name."""
    sizes = [Counter(path for name in side for path in _paths(name) if not numbers(path)) for side in sides]
    known = [{path.rpartition(".")[2] for path, size in some.items() if size > LAYER} for some in sizes]

    def said(name: str) -> set[str]:
        parts = {path.rpartition(".")[2] for path in _paths(name) if not numbers(path)}
        return {part for part in parts & known[0] & known[1] if distinctive(words(part))}

    return {(old, new) for old, new in pairs if said(old) != said(new)}


def _single(pairs: Sequence[Pair], sides: tuple[Shapes, Shapes]) -> set[Pair]:
    """Return the pairs of which one name is in a layer (a numbered module of several tensors) and the other is not."""
    sizes = [Counter(path for name in side for path in _paths(name)) for side in sides]

    def inside(name: str, counts: Counter[str]) -> bool:
        return any(_numbered(path) and counts[path] > LAYER for path in _paths(name))

    return {pair for pair in pairs if inside(pair[0], sizes[0]) != inside(pair[1], sizes[1])}


def _crossed(pair: Pair) -> bool:
    """Whether only one of two names is that of a bias, they name different projections of an attention, or the first and
    the second of two modules.
    """
    firsts = [{ORDINALS[word] for word in words(name)[-3:] if word in ORDINALS} for name in pair]
    if all(firsts) and firsts[0].isdisjoint(firsts[1]):
        return True
    one, other = (any(alike(word, "bias") == 1 for word in words(name)[-1:]) for name in pair)
    ours, theirs = (
        {which for which in _PROJECTIONS for word in words(name)[-3:] if alike(word, which) >= 0.8} for name in pair
    )
    return one != other or bool(ours and theirs and not ours & theirs)


def _equal_layers(
    partners: _Partners, sides: tuple[Shapes, Shapes], complete: bool
) -> Iterator[tuple[list[Pair], bool]]:
    """Return the equal modules beside each other with their partners, and whether the order of both agrees."""
    ours, theirs = (_places(shapes, complete) for shapes in sides)
    found: dict[Pair, list[Pair]] = {}
    for one, others in partners.items():
        for other in others:
            if one in ours and other in theirs:
                found.setdefault((_family(one), _family(other)), []).append((one, other))
    for some in found.values():
        yield some, _ordered([(ours[one], theirs[other]) for one, other in some])


def _ordered(layers: Sequence[tuple[_LayerPlace, _LayerPlace]]) -> bool:
    """Whether modules have equal places, or the same order, if both sides count from 0 and one side has more of them."""
    beside = [set().union(*(both[side].beside for both in layers)) for side in (0, 1)]
    numbered = sorted((one.number, other.number) for one, other in layers)
    if beside[0] == beside[1]:
        return all(one == other for one, other in numbered)
    first = {one.first for both in layers for one in both}
    whole = first == {0} and len(beside[0]) != len(beside[1]) and all(some == {*range(len(some))} for some in beside)
    return whole and all(one[1] <= other[1] for one, other in pairwise(numbered))


class _LayerPlace(NamedTuple):
    """The number of a module, and those of all modules beside it that have tensors in common with it."""

    number: int
    beside: frozenset[int]
    first: int = 0


def _places(shapes: Shapes, complete: bool) -> dict[str, _LayerPlace]:
    """Return the places of numbered modules among those beside them that have tensors of the same names and shapes.

    If no number is missing, they are counted from 0, without modules of other kinds. `block_1` may be the first one if
    nothing is left over; `blocks.1` may not, as lists of modules count from 0.
    """
    numbered: dict[Pair, set[int]] = {}
    below: dict[str, list[Pair]] = {}
    whole: dict[str, set[int]] = {}
    kinds: dict[Pair, Shape | None] = {}
    unequal = set()
    for name, shape in shapes.items():
        for path in _paths(name):
            if own := numbers(path.rpartition(".")[2]):
                role = _family(path), name[len(path) :]
                below.setdefault(path, []).append(role)
                numbered.setdefault(role, set()).add(own[-1])
                whole.setdefault(role[0], set()).add(own[-1])
                if kinds.setdefault(role, shape) != shape:
                    unequal.add(role[0])
    found = {}
    for path, roles in below.items():
        family, last = roles[0][0], path.rpartition(".")[2]
        beside = sorted(set().union(*(numbered[role] for role in roles)))
        first = int(complete and not last.isdecimal() and 0 not in whole[family])
        if whole[family] == {*range(first, first + len(whole[family]))}:
            place = _LayerPlace(beside.index(numbers(last)[-1]), frozenset(range(len(beside))), first)
        else:
            place = _LayerPlace(numbers(last)[-1], frozenset(beside))
        if family not in unequal:
            found[path] = place
    return found


def _family(path: str) -> str:
    """Return a path without the numbers of its last part: `h.0.mlp.#` for `h.0.mlp.1`."""
    head, _, last = path.rpartition(".")
    return f"{head}.{pattern(last)}"


def _series(path: str) -> str:
    """Return a path without its last number."""
    head, _, tail = path.rpartition(str(numbers(path)[-1]))
    return f"{head}#{tail}"


def _differing(layers: list[Pair], ordered: bool, below: Mapping[Pair, Sequence[Pair]]) -> Iterator[Pair]:
    """Return the pairs in layers that are not matched as in the other layers; all if these are in another order."""
    roles: dict[tuple[int, str], set[str]] = {}
    inside = []
    for both in layers:
        for pair in below.get(both, ()):
            old, new = (name[len(path) :] for name, path in zip(pair, both))
            inside.append((pair, old, new))
            roles.setdefault((0, old), set()).add(new)
            roles.setdefault((1, new), set()).add(old)
    for pair, old, new in inside:
        if not ordered or len(roles[0, old]) > 1 or len(roles[1, new]) > 1:
            yield pair
