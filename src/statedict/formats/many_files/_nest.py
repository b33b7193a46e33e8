"""Build a tree from flat names: each value is placed at the path that belongs to its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ...errors import FormatError
from ..storages._shown import step_of

Steps = tuple[str | int, ...]


class Entry(NamedTuple):
    """One flat name: its value (a Leaf, or an object from a pickle) and the steps of its path."""

    name: str
    steps: Steps
    value: object


class _Branch(dict[Any, Any]):
    """A dict made here, as opposed to a value that is a dict."""


def nested(entries: Iterable[Entry], file: str) -> dict[Any, Any]:
    """Return the tree with each entry at its path; a branch with the keys 0, 1, 2 … becomes a list."""
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
                raise FormatError(f"its path {step_of(steps)} leads into another value", file=file, member=name)
        if steps[-1] in place:
            raise FormatError(f"its path {step_of(steps)} is also the path of another value", file=file, member=name)
        place[steps[-1]] = value
    for parent, step, branch in reversed(made):
        parent[step] = _settled(branch)
    return dict(root)


def _settled(branch: _Branch) -> dict[Any, Any] | list[Any]:
    if set(branch) == set(range(len(branch))):
        return [branch[at] for at in range(len(branch))]
    return dict(branch)
