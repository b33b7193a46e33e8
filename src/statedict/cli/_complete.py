"""Shell completion for options with a fixed set of values, which are imported only for that."""

from __future__ import annotations

from collections.abc import Iterable


def methods(incomplete: str) -> list[str]:
    """Return the ways to merge that begin so."""
    from statedict.plan import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def formats(incomplete: str) -> list[str]:
    """Return the formats of the package, not those of plugins, that begin so."""
    from statedict.formats import WRITERS

    return [name for name in WRITERS if name.startswith(incomplete)]


def policies(incomplete: str) -> list[str]:
    """Return the policies for other shapes that begin so, with the pattern in front of them."""
    from statedict.plan import POLICIES

    return _after_pattern(incomplete, POLICIES)


def dtypes(incomplete: str) -> list[str]:
    """Return the floating-point dtypes that begin so, with the pattern in front of them."""
    from statedict.state import DTYPES

    return _after_pattern(incomplete, [name for name, dtype in DTYPES.items() if dtype.is_floating])


def _after_pattern(incomplete: str, words: Iterable[str]) -> list[str]:
    pattern, mark, begun = incomplete.rpartition("=")
    return [f"{pattern}{mark}{word}" for word in words if word.startswith(begun)]
