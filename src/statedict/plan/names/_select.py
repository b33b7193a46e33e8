"""Select names by `include` and `exclude`, and choose values by pattern.

A tensor has several names: that in the source, the renamed one, that of the slot, and each of these without wrappers. A
pattern may match any of them: a tensor is included if `include` matches one of its names (or is not given), and excluded if
`exclude` matches one. Excluded names are not missing or unexpected: the report lists them separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from statedict.errors import UnknownNameError
from statedict.state import Patterns, matcher

from ._near_misses import near_pattern
from ._wrappers import bare


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
