"""Select names by `include` and `exclude`, and choose values by pattern.

A tensor has several names: that in the source, the renamed one, that of the slot, and each of these without wrappers. A
pattern may match any of them: a tensor is included if `include` matches one of its names (or is not given), and excluded if
`exclude` matches one. Excluded names are not missing or unexpected: the report lists them separately.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

from statedict.errors import UnknownNameError
from statedict.state import Patterns, matcher

from ._adapters import pair_adapter
from ._near_misses import near_pattern
from ._recipe import Offers, sources_of
from ._wrappers import COUNT, Pairing, bare, pair


class Selection:
    """The compiled patterns of `include` and `exclude`."""

    def __init__(self, include: Patterns, exclude: Patterns) -> None:
        self.include = _listed(include) or None
        self.exclude = _listed(exclude) or ()
        self._included = (lambda name: True) if self.include is None else _any_form(self.include)
        self._excluded = _any_form(self.exclude)

    @property
    def everything(self) -> bool:
        """Whether there are no patterns, so that everything is selected."""
        return self.include is None and not self.exclude

    def takes(self, *names: str) -> bool:
        """Whether a tensor with these names is selected."""
        return any(map(self._included, names)) and not self.refuses(*names)

    def refuses(self, *names: str) -> bool:
        """Whether `exclude` matches one of these names."""
        return bool(self.exclude) and any(map(self._excluded, names))

    def check(self, names: Iterable[str]) -> None:
        """Raise UnknownNameError if `include` does not match any name: the load would do nothing and seem successful."""
        every = list(names)
        if self.include and not any(map(self._included, every)):
            near = near_pattern(self.include[0], every, 3)
            raise UnknownNameError(self.include[0], among="the source or the model", near=near)


def _any_form(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a function that says whether a name, with or without wrappers, matches a pattern."""
    fits = matcher(patterns)
    return cache(lambda name: fits(name) or fits(bare(name)))  # called several times for each name


def unmatched_patterns(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return a note for each pattern that does not match any of the names, with the nearest name."""
    patterns = dict.fromkeys(patterns)
    if not patterns:
        return []
    every = list(names)
    unfit = [pattern for pattern in patterns if not any(map(_any_form((pattern,)), every))]
    return [
        f"the pattern {pattern!r} does not match any name"
        + "".join(f"; the nearest is {n!r}" for n in near_pattern(pattern, every))
        for pattern in unfit
    ]


def by_pattern(given: Any) -> Callable[..., Any]:
    """Return a function from a tensor's names to its value: one for all, or that of the first matching pattern."""
    if not isinstance(given, Mapping):
        return lambda *names: given
    fits, values = [_any_form((pattern,)) for pattern in given], list(given.values())
    first = cache(lambda name: next((n for n, fit in enumerate(fits) if fit(name)), len(values)))
    return lambda *names: (*values, None)[min(map(first, names))]


def _listed(patterns: Patterns) -> tuple[str, ...] | None:
    return patterns if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)


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
        pairs, notes, own = _paired(offered, slots, wrappers)
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
    pairs, notes, own = _paired(chosen, slots, wrappers, lambda name, slot: selection.takes(slot, *names[name]))
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


def _paired(
    offered: Collection[str],
    slots: Collection[str],
    wrappers: bool,
    takes: Callable[[str, str], bool] = lambda name, slot: True,
) -> Pairing:
    """Pair offers with slots: by equal names, by names without wrappers, and then by those of an adapter."""
    found = pair(offered, slots, wrappers=wrappers)
    filled = set(found.pairs.values())
    if not wrappers or len(found.pairs) == len(offered) or len(filled) == len(slots):
        return found
    more = pair_adapter(
        [name for name in offered if name not in found.pairs], [slot for slot in slots if slot not in filled], takes
    )
    return Pairing({**found.pairs, **more.pairs}, found.notes + more.notes, found.own | more.own)


def _kept_counts(missing: Collection[str], own: Collection[str]) -> list[str]:
    """Return a note for each counter of an AveragedModel that is not filled."""
    return [
        f"{slot!r}, the update counter of AveragedModel, is not in the source and keeps its value; if it is 0, the next "
        "update replaces the average"
        for slot in missing
        if slot in own and slot.rpartition(".")[2] == COUNT
    ]
