"""Write the matches of many layers as one line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"\d+")
_LETTERS = "ijklmn"

Line = tuple[str, str, str]  # a source name, a target name, and the operations


def folded(lines: Iterable[Line]) -> list[tuple[str, int]]:
    """Return lines for these matches, with letters for the numbers that vary together, and the number of matches of each.

    >>> folded([("h.0.mlp.0.w", "l.0.fc1.w", ""), ("h.1.mlp.0.w", "l.1.fc1.w", "")])
    [('h.{i}.mlp.0.w -> l.{i}.fc1.w', 2)]
    """
    groups: dict[Line, list[Line]] = {}
    for line in lines:
        source, target, operations = line
        groups.setdefault((_NUMBER.sub("#", source), _NUMBER.sub("#", target), operations), []).append(line)
    found: list[tuple[str, int]] = []
    for some in groups.values():
        split = _by_fixed_numbers(some)
        found += [(_one(part), len(part)) for part in split]
    return found


def _by_fixed_numbers(some: Sequence[Line]) -> list[list[Line]]:
    """Split matches by the numbers that do not simply recur on the other side."""
    numbers = [tuple(tuple(_NUMBER.findall(name)) for name in line[:2]) for line in some]
    pairs = _recurring(numbers)
    parts: dict[object, list[Line]] = {}
    for line, (ours, theirs) in zip(some, numbers):
        fixed = (
            tuple(n for place, n in enumerate(ours) if place not in pairs),
            tuple(n for place, n in enumerate(theirs) if place not in pairs.values()),
        )
        parts.setdefault(fixed, []).append(line)
    return list(parts.values())


def _recurring(numbers: Sequence[tuple[tuple[str, ...], ...]]) -> dict[int, int]:
    """Return the places of numbers that vary and are equal on both sides in all matches."""
    pairs: dict[int, int] = {}
    for place in range(len(numbers[0][0])):
        if len({ours[place] for ours, _ in numbers}) > 1:
            equal = (p for p in range(len(numbers[0][1])) if all(ours[place] == theirs[p] for ours, theirs in numbers))
            other = next((p for p in equal if p not in pairs.values()), None)
            if other is not None:
                pairs[place] = other
    return pairs


def _one(some: Sequence[Line]) -> str:
    source, target, operations = some[0]
    numbers = [tuple(tuple(_NUMBER.findall(name)) for name in line[:2]) for line in some]
    pairs = _recurring(numbers)
    letters = {place: f"{{{_LETTERS[n % len(_LETTERS)]}}}" for n, place in enumerate(pairs)}
    sides = (
        _with(source, letters),
        _with(target, {other: letters[place] for place, other in pairs.items()}),
    )
    return f"{sides[0]} -> {sides[1]}" + (f" | {operations}" if operations else "")


def _with(name: str, letters: dict[int, str]) -> str:
    """Replace the numbers at these places."""
    places = iter(range(len(name)))
    return _NUMBER.sub(lambda found: letters.get(next(places), found[0]), name)
