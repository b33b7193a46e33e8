"""Build a tree from flat names: each value is placed at the path that belongs to its name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ...errors import FormatError
from ..storages._describe import step_of

Steps = tuple[str | int, ...]


class NamedValue(NamedTuple):
    """One flat name: its value (a Leaf, or an object from a pickle) and the steps of its path."""

    name: str
    steps: Steps
    value: object


class _Branch(dict[Any, Any]):
    """A dict made here, as opposed to a value that is a dict."""


def nested(entries: Iterable[NamedValue], file: str) -> dict[Any, Any]:
    """Return the tree with each entry at its path; a branch with the keys 0, 1, 2 … becomes a list."""
    root = _Branch()
    made: list[tuple[_Branch, str | int, _Branch]] = []
    for name, steps, value in entries:
        branch = root
        for step in steps[:-1]:
            if step not in branch:
                branch[step] = _Branch()
                made.append((branch, step, branch[step]))
            branch = branch[step]
            if type(branch) is not _Branch:
                raise FormatError(f"its path {_path(steps)} leads into another value", file=file, member=name)
        if steps[-1] in branch:
            raise FormatError(f"its path {_path(steps)} is also the path of another value", file=file, member=name)
        branch[steps[-1]] = value
    for parent, step, branch in reversed(made):
        parent[step] = _list_or_dict(branch)
    return dict(root)


def _path(steps: Steps) -> str:
    return "/".join(map(step_of, steps))


def _list_or_dict(branch: _Branch) -> dict[Any, Any] | list[Any]:
    if set(branch) == set(range(len(branch))):
        return [branch[at] for at in range(len(branch))]
    return dict(branch)
