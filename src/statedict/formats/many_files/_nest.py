"""A tree out of flat names: each value put where the steps that belong to its name lead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ...errors import FormatError
from ..storages._shown import step_of

Steps = tuple[str | int, ...]


class Entry(NamedTuple):
    """One flat name: the value that it stands for (a Leaf, or what a pickle gave), and the steps to its place."""

    name: str
    steps: Steps
    value: object


class _Branch(dict[Any, Any]):
    """A dict that is made here, as opposed to a value that happens to be one."""


def nested(entries: Iterable[Entry], file: str) -> dict[Any, Any]:
    """The tree in which each entry lies at the end of its steps; a branch whose steps are 0, 1, 2 … is a list."""
    root = _Branch()
    made: list[tuple[_Branch, str | int, _Branch]] = []
    for name, steps, value in entries:
        place = root
        for step in steps[:-1]:
            if step not in place:
                place[step] = _Branch()
                made.append((place, step, place[step]))
            place = place[step]
            if type(place) is not _Branch:
                raise FormatError(f"its place {step_of(steps)} lies inside another value", file=file, member=name)
        if steps[-1] in place:
            raise FormatError(f"its place {step_of(steps)} is another value's too", file=file, member=name)
        place[steps[-1]] = value
    for parent, step, branch in reversed(made):
        parent[step] = _settled(branch)
    return dict(root)


def _settled(branch: _Branch) -> dict[Any, Any] | list[Any]:
    if set(branch) == set(range(len(branch))):
        return [branch[at] for at in range(len(branch))]
    return dict(branch)
