"""Find matches that contradict each other, as they do if different tensors are missing on the two sides.

Three things are the same everywhere in a model: the tensors of one module are in one module; what corresponds to a name in
one layer corresponds to it in the others; and equal layers are in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product

from statedict.state import parents

from ..operations._specs import Shape
from ._nodes import numbers, pattern
from ._words import alike, words

Pair = tuple[str, str]
Shapes = Mapping[str, Shape | None]


def contradicted(pairs: Sequence[Pair], sides: tuple[Shapes, Shapes]) -> set[Pair]:
    """Return the pairs, of names of a source and a model, that contradict others; `sides` are the shapes of all names.

    >>> pairs = [("h.0.a", "x.0.b"), ("h.1.a", "x.1.b"), ("h.2.a", "x.2.c")]
    >>> sides = {old: (3,) for old, _ in pairs}, {new: (3,) for _, new in pairs}
    >>> contradicted(pairs, sides) == {*pairs}
    True
    """
    partners = _partners(pairs)
    wrong = {pair for pair in pairs if _divided(pair, partners) or _crossed(pair)}
    below: dict[Pair, list[Pair]] = {}
    for pair in pairs:
        for both in product(_above(pair[0]), _above(pair[1])):
            below.setdefault(both, []).append(pair)
    for layers, ordered in _equal_layers(partners[0], sides):
        wrong |= set(_differing(layers, ordered, below))
    return wrong


_Partners = Mapping[str, list[str]]


def _partners(pairs: Sequence[Pair]) -> tuple[_Partners, _Partners]:
    """Return, for the modules of both sides, those that have the largest share of their tensors in common with them."""
    sizes = tuple(Counter(path for pair in pairs for path in _above(pair[side])) for side in (0, 1))
    common = Counter(both for old, new in pairs for both in product(_above(old), _above(new)))
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


def _above(name: str) -> list[str]:
    return [path for path in parents(name) if path]


def _divided(pair: Pair, partners: tuple[_Partners, _Partners]) -> bool:
    """Whether a module above one name has its tensors in a module that the other name is not in."""
    return any(
        path in partners[side] and not any(f"{pair[1 - side]}.".startswith(f"{p}.") for p in partners[side][path])
        for side in (0, 1)
        for path in _above(pair[side])
    )


def _crossed(pair: Pair) -> bool:
    """Whether only one of two names is that of a bias."""
    one, other = (any(alike(word, "bias") == 1 for word in words(name)[-1:]) for name in pair)
    return one != other


def _equal_layers(partners: _Partners, sides: tuple[Shapes, Shapes]) -> Iterator[tuple[list[Pair], bool]]:
    """Return the equal modules beside each other with their partners, and whether the numbers of both agree."""
    ours, theirs = map(_families, sides)
    found: dict[Pair, list[Pair]] = {}
    for one, others in partners.items():
        for other in others:
            if _family(one) in ours and _family(other) in theirs:
                found.setdefault((_family(one), _family(other)), []).append((one, other))
    for (family, other), some in found.items():
        yield some, _ordered(some, ours[family], theirs[other])


def _ordered(layers: list[Pair], ours: set[int], theirs: set[int]) -> bool:
    """Whether the modules have equal numbers, or the same order, if both sides number them from 0 and one side has more."""
    places = sorted((numbers(one)[-1], numbers(other)[-1]) for one, other in layers)
    if ours == theirs:
        return all(one == other for one, other in places)
    whole = len(ours) != len(theirs) and all(some == {*range(len(some))} for some in (ours, theirs))
    return whole and all(one[1] <= other[1] for one, other in pairwise(places))


def _families(shapes: Shapes) -> dict[str, set[int]]:
    """Return the families of modules beside each other that have tensors of the same shapes, and their numbers."""
    inside: dict[str, dict[str, Shape | None]] = {}
    numbered: dict[str, set[int]] = {}
    unequal = set()
    for name, shape in shapes.items():
        for path in parents(name):
            if own := numbers(path.rpartition(".")[2]):
                family = _family(path)
                numbered.setdefault(family, set()).add(own[-1])
                if inside.setdefault(family, {}).setdefault(name[len(path) :], shape) != shape:
                    unequal.add(family)
    return {family: some for family, some in numbered.items() if family not in unequal}


def _family(path: str) -> str:
    """Return a path without the numbers of its last part: `h.0.mlp.#` for `h.0.mlp.1`."""
    head, _, last = path.rpartition(".")
    return f"{head}.{pattern(last)}"


def _differing(layers: list[Pair], ordered: bool, below: Mapping[Pair, Sequence[Pair]]) -> Iterator[Pair]:
    """Return the pairs in layers that are not matched as in the other layers; all if these are in another order."""
    roles: dict[tuple[int, str], set[str]] = {}
    inside = []
    for both in layers:
        for pair in below[both]:
            old, new = (name[len(path) :] for name, path in zip(pair, both))
            inside.append((pair, old, new))
            roles.setdefault((0, old), set()).add(new)
            roles.setdefault((1, new), set()).add(old)
    for pair, old, new in inside:
        if not ordered or len(roles[0, old]) > 1 or len(roles[1, new]) > 1:
            yield pair
