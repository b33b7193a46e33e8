"""Dotted names: prefixes, glob patterns, what is nearest.

A glob pattern is matched against the whole name, case-sensitively: `*` any run of characters, dots included; `?` one
character; `[ab]` one of them. A pattern without wildcards that names a module selects everything below it:
`"encoder"` is `encoder` and `encoder.*`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from ._arguments import patterns as checked

Patterns = str | Iterable[str] | None


def matcher(patterns: Patterns) -> Callable[[str], bool]:
    """A function that tells whether a name matches any of the patterns.

    >>> fits = matcher(["head", "*.bias"])
    >>> fits("head.weight"), fits("encoder.0.bias"), fits("heads.weight")
    (True, True, False)
    """
    given = checked("patterns", patterns)
    chosen = (given,) if isinstance(given, str) else given or ()
    if not chosen:
        return lambda name: False
    compiled = re.compile("|".join(f"(?:{_regex(pattern)})" for pattern in chosen), re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


@lru_cache(maxsize=256)
def _regex(pattern: str) -> str:
    from fnmatch import translate

    if not any(mark in pattern for mark in "*?["):
        return re.escape(pattern.removesuffix(".")) + r"(?:\..*)?"
    return translate(pattern)


def parents(name: str) -> list[str]:
    """The module paths above a name, the nearest first, down to the root `""`.

    >>> parents("encoder.0.weight")
    ['encoder.0', 'encoder', '']
    """
    found = []
    while "." in name:
        name = name.rpartition(".")[0]
        found.append(name)
    return [*found, ""] if not found or found[-1] else found


def nearest(name: str, among: Collection[str], count: int = 1) -> list[str]:
    """The names that a person may have meant; nothing where none is close."""
    from difflib import get_close_matches

    return get_close_matches(name, among, n=count, cutoff=0.6) if len(among) <= 2000 else []
