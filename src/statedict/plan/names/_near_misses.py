"""Near misses: find the names that were probably meant.

The search does not compare all names with all others. Names that differ only in their numbers count once (a model with
100,000 names has some dozens of such forms), and if many forms are left, only those that share a component are compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_WILD = re.compile(r"[{*?\[]")
_NUMBER = re.compile(r"\d+")
# Limits the time of get_close_matches, which is linear in the candidates.
_MOST = 300
_CLOSE = 0.6
# Comparing is quadratic in the length, and a name in a hostile file may be a megabyte long.
_LONGEST = 200


class NearMisses:
    """An index of names for repeated searches."""

    def __init__(self, names: Iterable[str]) -> None:
        self._examples: dict[str, str] = {}
        for name in names:
            self._examples.setdefault(_shape(name), name)
        self._having: dict[str, list[str]] = {}
        for shape in self._examples:
            for part in set(shape.split(".")):
                self._having.setdefault(part, []).append(shape)

    def to(self, name: str, count: int = 1) -> list[str]:
        """Return the nearest names, the best first; empty if none is close.

        >>> NearMisses(["encoder.layers.0.weight", "encoder.layers.1.weight", "head.bias"]).to("encoder.layer.weight")
        ['encoder.layers.0.weight']
        """
        shape = _shape(name)
        found = get_close_matches(shape, self._candidates(shape), n=count, cutoff=_CLOSE)
        return [self._examples[near] for near in found]

    def _candidates(self, shape: str) -> list[str]:
        if len(self._examples) <= _MOST:
            return list(self._examples)
        rarest = sorted((self._having.get(part, []) for part in shape.split(".")), key=len)
        chosen: dict[str, None] = {}
        for having in rarest:
            chosen.update(dict.fromkeys(having[:_MOST]))
            if len(chosen) >= _MOST:
                break
        return list(chosen)[:_MOST]


def _shape(name: str) -> str:
    return _NUMBER.sub("0", name[:_LONGEST])


def near_pattern(pattern: str, names: Iterable[str], count: int = 1) -> list[str]:
    """Return the names that a pattern or template was probably meant to match: those with a similar beginning.

    >>> near_pattern("encodr.{i}.*", ["encoder.0.weight", "head.bias"])
    ['encoder.0.weight']
    """
    literal = _WILD.split(pattern)[0]
    parts = literal.count(".") + (literal == pattern)
    if not parts:
        return NearMisses(names).to(pattern, count)
    heads: dict[str, str] = {}
    for name in names:
        heads.setdefault(".".join(name.split(".", parts)[:parts]), name)
    return [heads[head] for head in NearMisses(heads).to(".".join(literal.split(".")[:parts]), count)]
