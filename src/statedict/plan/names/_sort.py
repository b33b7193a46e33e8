"""Offers and slots sorted: which go together, which are left over, which were not selected."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ._recipe import Offers, sources_of
from ._select import Selection
from ._wrappers import pair


class Sorted(NamedTuple):
    """`pairs` are offer → slot, `missing` slots that nothing fills, `unexpected` offers that have no slot; `excluded` are
    the slots that were not selected, and the offers without a slot that were not."""

    pairs: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    excluded: list[str]
    notes: list[str]


def sort(offered: Offers, slots: Collection[str], selection: Selection, wrappers: bool) -> Sorted:
    """Every slot and every offer in its place; CollisionError where two offers would fill one slot.

    What is excluded by its own name is set aside before anything is paired, so that `exclude` can settle a collision.
    """
    if selection.everything:
        pairs, notes, own = pair(offered, slots, wrappers=wrappers)
        filled = set(pairs.values())
        missing = [slot for slot in slots if slot not in filled]
        unexpected = [name for name in offered if name not in pairs]
        if not own:
            return Sorted(pairs, missing, unexpected, [], notes)
        excluded = [name for name in (*missing, *unexpected) if name in own]
        notes = notes + _kept_counts(missing, own)
        missing, unexpected = ([name for name in names if name not in own] for names in (missing, unexpected))
        return Sorted(pairs, missing, unexpected, excluded, notes)
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
    return Sorted(kept, missing, unexpected, excluded, notes)


def _kept_counts(missing: Collection[str], own: Collection[str]) -> list[str]:
    """A note for each count of an AveragedModel that nothing fills."""
    return [
        f"{slot!r}, AveragedModel's count, is not in the source and stays; at 0 the next update replaces the average"
        for slot in missing
        if slot in own
    ]
