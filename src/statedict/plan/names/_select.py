"""Which names take part: `include` and `exclude`, and values given per pattern.

A tensor has several names on its way: the source's, what a rename makes of it, the slot's, and each of these without
wrappers. A pattern may be written for any of them: a tensor is included where `include` fits one of its names (or is not
given), and excluded where `exclude` fits one. What is excluded is neither missing nor unexpected: the report lists it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from statedict.errors import UnknownNameError
from statedict.state import Patterns, matcher

from ._near import near_pattern
from ._wrappers import bare


class Selection:
    """`include` and `exclude`, ready to be asked."""

    def __init__(self, include: Patterns, exclude: Patterns) -> None:
        self.include = _listed(include) or None
        self.exclude = _listed(exclude) or ()
        self._included = (lambda name: True) if self.include is None else _any_form(self.include)
        self._excluded = _any_form(self.exclude)

    @property
    def everything(self) -> bool:
        """Whether nothing was selected, so that all takes part."""
        return self.include is None and not self.exclude

    def takes(self, *names: str) -> bool:
        """Whether a tensor of these names takes part."""
        return any(map(self._included, names)) and not self.refuses(*names)

    def refuses(self, *names: str) -> bool:
        """Whether `exclude` fits one of these names, whatever other names the tensor will have."""
        return bool(self.exclude) and any(map(self._excluded, names))

    def check(self, names: Iterable[str]) -> None:
        """UnknownNameError where no name at all is included: that would load nothing, and look like a success."""
        every = list(names)
        if self.include and not any(map(self._included, every)):
            near = near_pattern(self.include[0], every, 3)
            raise UnknownNameError(self.include[0], among="the source or the model", near=near)


def _any_form(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a name, or what is left of it without wrappers, fits a pattern."""
    fits = matcher(patterns)
    return cache(lambda name: fits(name) or fits(bare(name)))  # every name is asked about several times


def idle(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """A note for each pattern that fits none of the names, with the nearest one."""
    patterns = dict.fromkeys(patterns)
    if not patterns:
        return []
    every = list(names)
    unfit = [pattern for pattern in patterns if not any(map(_any_form((pattern,)), every))]
    return [
        f"the pattern {pattern!r} matches no name"
        + "".join(f"; the nearest is {n!r}" for n in near_pattern(pattern, every))
        for pattern in unfit
    ]


def by_pattern(given: Any) -> Callable[..., Any]:
    """A function from a tensor's names to the value given for it: one for all, or that of the first pattern that fits."""
    if not isinstance(given, Mapping):
        return lambda *names: given
    fits, values = [_any_form((pattern,)) for pattern in given], list(given.values())
    first = cache(lambda name: next((n for n, fit in enumerate(fits) if fit(name)), len(values)))
    return lambda *names: (*values, None)[min(map(first, names))]


def _listed(patterns: Patterns) -> tuple[str, ...] | None:
    return patterns if patterns is None else (patterns,) if isinstance(patterns, str) else tuple(patterns)
