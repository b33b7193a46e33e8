"""Find modules beside each other that have the same tensors, such as two encoders: only their names say which is which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from math import prod

from statedict.state import parents

from ..operations._specs import Shape
from ._classes import LAYER
from ._nodes import pattern
from ._words import alike, words

# Two modules are towers if they have at least this share of all their elements in tensors of the same names and shapes.
_COMMON = 0.4
# Modules beside each other are compared in pairs; if there are more than this, they are not treated as towers.
_MOST = 12
_ALIKE = 0.6

# The module → the words that distinguish it from the other towers beside it.
Towers = Mapping[str, frozenset[str]]


def towers(shapes: Mapping[str, Shape | None]) -> Towers:
    """Return the towers among the modules of these tensors.

    >>> two = {f"{side}.{name}.weight": (3,) for side in ("left", "right") for name in "abc"}
    >>> towers(two)
    {'left': frozenset({'left'}), 'right': frozenset({'right'})}
    """
    inside: dict[str, set[tuple[str, Shape | None]]] = {}
    for name, shape in shapes.items():
        for path in parents(name):
            inside.setdefault(path, set()).add((name.removeprefix(path), shape))
    beside: dict[str, dict[str, list[str]]] = {}
    for path, tensors in inside.items():
        if path and len(tensors) > LAYER:
            beside.setdefault(path.rpartition(".")[0], {}).setdefault(pattern(path), []).append(path)
    found: dict[str, frozenset[str]] = {}
    for kinds in beside.values():
        for ours, theirs in combinations(kinds.values(), 2) if len(kinds) <= _MOST else ():
            one, other = inside[ours[0]], inside[theirs[0]]
            if _size(one & other) >= _COMMON * _size(one | other):
                said = [frozenset(words(path.rpartition(".")[2])) for path in (ours[0], theirs[0])]
                found |= {path: found.get(path, frozenset()) | said[0] - said[1] for path in ours}
                found |= {path: found.get(path, frozenset()) | said[1] - said[0] for path in theirs}
    return found


def _size(tensors: Iterable[tuple[str, Shape | None]]) -> int:
    return sum(prod(shape or ()) for _, shape in tensors)


def untold(matched: Iterable[tuple[str, str]], sides: tuple[Towers, Towers]) -> tuple[set[str], set[str]]:
    """Return the towers of both sides whose matches no word confirms; `matched` are names of a source and a model.

    If it is only one of those beside each other, the others leave no choice.
    """
    seen: tuple[set[str], set[str]] = (set(), set())
    wrong: tuple[set[str], set[str]] = (set(), set())
    for names in matched:
        paths = [[path for path in parents(name) if path in side] for name, side in zip(names, sides)]
        for side, other in ((0, 1), (1, 0)):
            said = [sides[other][path] for path in paths[other]] or [frozenset(words(names[other]))]
            for path in paths[side]:
                seen[side].add(path)
                if not any(_similar(sides[side][path], each) for each in said):
                    wrong[side].add(path)
    found = sides[0].keys() - (seen[0] - wrong[0]), sides[1].keys() - (seen[1] - wrong[1])
    for some in found:
        kinds: dict[str, set[str]] = {}
        for path in some:
            kinds.setdefault(path.rpartition(".")[0], set()).add(pattern(path))
        some -= {path for path in some if len(kinds[path.rpartition(".")[0]]) == 1}
    return found


def _similar(one: Iterable[str], other: Iterable[str]) -> bool:
    others = list(other)
    return any(alike(a, b) >= _ALIKE for a in one for b in others)
