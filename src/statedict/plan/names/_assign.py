"""Assign offers to slots: which belong together, which remain, which were not selected."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ._recipe import Offers, sources_of
from ._select import Selection
from ._wrappers import pair


class Assignment(NamedTuple):
    """The result of `assign`.

    Attributes:
        pairs: offer → slot.
        missing: slots that are not filled.
        unexpected: offers without a slot.
        excluded: slots that were not selected, and offers without a slot that were not selected.
        notes: warnings, as text.
    """

    pairs: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    excluded: list[str]
    notes: list[str]


def assign(offered: Offers, slots: Collection[str], selection: Selection, wrappers: bool) -> Assignment:
    """Assign every offer and every slot; raises CollisionError if two offers would fill one slot.

    Offers that are excluded by their own name are removed before pairing, so that `exclude` can resolve a collision.
    """
    if selection.everything:
        pairs, notes, own = pair(offered, slots, wrappers=wrappers)
        filled = set(pairs.values())
        missing = [slot for slot in slots if slot not in filled]
        unexpected = [name for name in offered if name not in pairs]
        if not own:
            return Assignment(pairs, missing, unexpected, [], notes)
        excluded = [name for name in (*missing, *unexpected) if name in own]
        notes = notes + _kept_counts(missing, own)
        missing, unexpected = ([name for name in names if name not in own] for names in (missing, unexpected))
        return Assignment(pairs, missing, unexpected, excluded, notes)
    names = {name: (name, *sources_of(offer)) for name, offer in offered.items()}
    chosen = {name: None for name in offered if not selection.refuses(*names[name])}
    pairs, notes, own = pair(chosen, slots, wrappers=wrappers)
    filled = set(pairs.values())
    # A slot whose only tensor is excluded by its own name is not missing.
    refused = pair(
        [name for name in offered if name not in chosen], [s for s in slots if s not in filled], wrappers=wrappers
    ).pairs
    kept = {name: slot for name, slot in pairs.items() if selection.takes(slot, *names[name])}
    wanted = filled.union(refused.values())
    missing = [slot for slot in slots if slot not in wanted and slot not in own and selection.takes(slot)]
    unexpected = [name for name in chosen if not (name in pairs or name in own) and selection.takes(*names[name])]
    settled, placed = {*kept.values(), *missing}, {*pairs, *refused, *unexpected}
    excluded = [slot for slot in slots if slot not in settled]
    excluded += [name for name in offered if name not in placed and name not in slots]
    return Assignment(kept, missing, unexpected, excluded, notes)


def _kept_counts(missing: Collection[str], own: Collection[str]) -> list[str]:
    """Return a note for each counter of an AveragedModel that is not filled."""
    return [
        f"{slot!r}, the update counter of AveragedModel, is not in the source and keeps its value; if it is 0, the next "
        "update replaces the average"
        for slot in missing
        if slot in own
    ]
