"""What a list of a run's objects says: the files of each step, pins, and deletions that have begun."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from statedict.files import Entry
from statedict.formats import runs

PINS, REMOVING = ".pins", ".removing"


class Step(NamedTuple):
    """The objects of a step.

    Attributes:
        name: `step-0000001200`.
        etag: that of its manifest (or claim); empty if it has none.
        files: the keys of the others, by the token of the attempt that wrote them.
    """

    name: str
    etag: str
    files: dict[str, list[str]]


class Listing(NamedTuple):
    """The objects of a run, by what they are.

    Attributes:
        steps: by name, in order.
        pinned, removing: names of steps.
    """

    steps: dict[str, Step]
    pinned: set[str]
    removing: set[str]


def listing(entries: Iterable[Entry]) -> Listing:
    """Sort the objects of a run; those with other names do not belong to it."""
    steps: dict[str, Step] = {}
    marked: dict[str, set[str]] = {PINS: set(), REMOVING: set()}
    for entry in sorted(entries):
        first, _, rest = entry.key.partition("/")
        if first in marked:
            marked[first].update(runs.own_steps([rest]).values())
        elif rest and runs.own_steps([first]):
            step = steps.setdefault(first, Step(first, "", {}))
            token, _, file = rest.partition("/")
            if rest == runs.MANIFEST:
                steps[first] = step._replace(etag=entry.etag)
            elif file:
                step.files.setdefault(token, []).append(entry.key)
    return Listing(steps, marked[PINS], marked[REMOVING])


def marker(kind: str, name: str) -> str:
    """Return the key of the object that marks a step as pinned, or as being removed."""
    return f"{kind}/{name}"
