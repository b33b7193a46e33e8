"""Fold many names into few lines: `layers.{0…11}.attn.q.weight`.

An index is a component that consists of digits. Names that differ only in their indices become one group if every
combination of the indices shown exists; otherwise they are split into such groups by their first index, then the second, and
so on. The time is linear in the number of names, except for sorting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import product
from typing import NamedTuple

# Whole components, no leading zero (`007` is a name, not a number); 17 digits are past any layer count.
_INDEX = re.compile(r"(?<![^.])(0|[1-9][0-9]{0,16})(?![^.])")
# Limits the recursion for a hostile name with a thousand numbers; real names have two or three.
_MOST_INDICES = 16
_HOLE = "\0"
# The width of a set of numbers, so that there is space for the rest of the line.
_LONGEST_SPANS = 10


class Group(NamedTuple):
    """Names that are shown as one line `text`; `names` are in natural order."""

    text: str
    names: tuple[str, ...]


def fold(names: Iterable[str], key: Callable[[str], Hashable] | None = None) -> Iterator[Group]:
    """Group the names; the groups are in the order of their first names, and each name is in exactly one.

    Names with different `key`s, for instance different shapes, are not grouped.

    >>> [group.text for group in fold(["layers.0.weight", "layers.2.weight", "layers.1.weight", "head"])]
    ['layers.{0…2}.weight', 'head']
    """
    families: dict[tuple[str, Hashable], dict[tuple[int, ...], str]] = {}
    for name in names:
        template, indices = _parsed(name)
        families.setdefault((template, key(name) if key else None), {})[indices] = name
    return (group for (template, _), members in families.items() for group in _groups(template, members))


def spans(values: Iterable[int]) -> str:
    """Return sorted numbers as text: `0…3,5`. Of many scattered numbers, only the first, and the number of the others.

    >>> spans([0, 1, 2, 3, 5]), spans(range(0, 100, 2))
    ('0…3,5', '0,2,4,6,8,…+45')
    """
    runs: list[tuple[int, int]] = []
    for value in values:
        if runs and runs[-1][1] == value - 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    texts: list[str] = []
    left, room = sum(last - first + 1 for first, last in runs), _LONGEST_SPANS
    for first, last in runs:
        text = _run(first, last)
        room -= len(text) + 1
        if texts and room < 0:
            return ",".join([*texts, f"…+{left:,}"])
        texts.append(text)
        left -= last - first + 1
    return ",".join(texts)


def _run(first: int, last: int) -> str:
    return f"{first}…{last}" if last > first + 1 else ",".join(map(str, range(first, last + 1)))


def _parsed(name: str) -> tuple[str, tuple[int, ...]]:
    parts = _INDEX.split(name, _MOST_INDICES)
    return _HOLE.join(parts[::2]), tuple(map(int, parts[1::2]))


def _groups(template: str, members: dict[tuple[int, ...], str]) -> list[Group]:
    if len(members) == 1:
        return [Group(name, (name,)) for name in members.values()]
    return [
        Group(_text(template, box), tuple(members[row] for row in product(*box))) for box in _boxes(sorted(members))
    ]


def _text(template: str, box: tuple[tuple[int, ...], ...]) -> str:
    shown = [f"{{{spans(values)}}}" if len(values) > 1 else str(values[0]) for values in box]
    literals = template.split(_HOLE)
    return "".join(literal + span for literal, span in zip(literals, [*shown, ""]))


def _boxes(rows: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Split the rows (sorted, of equal length) into products of index sets that together are exactly the rows."""
    if len(rows[0]) == 1:
        return [(tuple(index for (index,) in rows),)]
    rests: dict[int, list[tuple[int, ...]]] = {}
    for row in rows:
        rests.setdefault(row[0], []).append(row[1:])
    alike: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for first, rest in rests.items():
        alike.setdefault(tuple(rest), []).append(first)
    return [(tuple(firsts), *box) for rest, firsts in alike.items() for box in _boxes(list(rest))]
