"""Dotted names: prefixes, glob patterns, nearest names.

A glob pattern is matched against the whole name, case-sensitively: `*` matches any characters, including dots; `?` one
character; `[ab]` one of these. A pattern without wildcards also matches everything below that module: `"encoder"` matches
`encoder` and `encoder.*`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterable

from ...errors import NotAStateError, printable
from .._arguments import described
from .._arguments import patterns as checked

Patterns = str | Iterable[str] | None
_WILDCARD, _NOTHING = re.compile(r"[*?[]"), r"(?!)"


def check_names(names: Iterable[object]) -> None:
    """Raise NotAStateError if one of the names of a state is not a string."""
    if {str}.issuperset(map(type, names)):
        return
    for name in names:
        if not isinstance(name, str):
            raise NotAStateError(f"the names in a state dict must be strings, but this one has {described(name)}")


def matcher(patterns: Patterns) -> Callable[[str], bool]:
    """Return a function that says whether a name matches any of the patterns.

    >>> fits = matcher(["head", "*.bias"])
    >>> fits("head.weight"), fits("encoder.0.bias"), fits("heads.weight")
    (True, True, False)
    """
    given = checked("patterns", patterns)
    chosen = (given,) if isinstance(given, str) else given or ()
    if not chosen:
        return lambda name: False
    from fnmatch import translate

    globs = [pattern for pattern in chosen if _WILDCARD.search(pattern)]
    matches = re.compile("|".join(map(translate, globs)) or _NOTHING).fullmatch
    # Not compiled: these can be all names of a model that one stage of a pipeline does not have.
    paths = {pattern.removesuffix(".") for pattern in chosen if not _WILDCARD.search(pattern)}
    below = tuple(f"{path}." for path in paths)
    return lambda name: name in paths or name.startswith(below) or matches(name) is not None


def each(patterns: Iterable[Patterns]) -> list[str]:
    """Return patterns, or names, one by one, from arguments that may also be lists of them.

    >>> each(["head", ["encoder.0", "encoder.1"]])
    ['head', 'encoder.0', 'encoder.1']
    """
    given = (checked("patterns", one) for one in patterns)
    return [one for part in given for one in ([part] if isinstance(part, str) else part or ())]


def parents(name: str) -> list[str]:
    """Return the module paths above a name, the nearest first, down to the root `""`.

    >>> parents("encoder.0.weight")
    ['encoder.0', 'encoder', '']
    """
    found = []
    while "." in name:
        name = name.rpartition(".")[0]
        found.append(name)
    return [*found, ""] if not found or found[-1] else found


def nearest(name: str, among: Collection[str], count: int = 1) -> list[str]:
    """Return the names that were probably meant: similar ones, or longer ones that end in `name`.

    >>> nearest("head.wieght", ["head.weight"]), nearest("0", ["module.0", "module.1"])
    (['head.weight'], ['module.0'])
    """
    from difflib import get_close_matches

    if len(among) > 2000:
        return []
    names = list(among)  # which another thread may be changing
    close = get_close_matches(name, names, n=count, cutoff=0.6)
    return close or [longer for longer in names if longer.endswith(f".{name}")][:count]


def warn_of_unknown(names: Iterable[str], among: Collection[str]) -> None:
    """Issue a UserWarning, at the line that called the caller, for each of `names` that is not `among` the names."""
    for name in names:
        if name not in among:
            near = "".join(f"; the nearest is {found!r}" for found in nearest(name, among))
            warnings.warn(printable(f"{name!r} does not match any name{near}"), UserWarning, stacklevel=3)
