"""Check the arguments of public functions: the error names the argument, what it must be, and what was given.

Without these checks, a wrong value would raise an unrelated error in the code below that first uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from reprlib import repr as short
from typing import Any


def flags(**values: Any) -> None:
    """Raise TypeError for a value that is neither True nor False."""
    for name, value in values.items():
        if (
            value is not True
            and value is not False
            and not isinstance(value, int)
            and type(value).__name__ not in ("bool", "bool_")
        ):
            raise TypeError(f"{name}= must be True or False, not {described(value)}")


def texts(**values: Any) -> None:
    """Raise TypeError for a value that is not a string."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}= must be a string, not {described(value)}")


def maybe(check: Callable[..., None], **values: Any) -> None:
    """Run `check` on the values that are not None."""
    check(**{name: value for name, value in values.items() if value is not None})


def mappings(**values: Any) -> None:
    """Raise TypeError for a value that is not a mapping."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            raise TypeError(f"{name}= must be a mapping, such as a dict, not {described(value)}")


def patterns(name: str, given: Any) -> Any:
    """Return patterns given as an argument: a string, a tuple of strings, or None; raises TypeError for anything else."""
    if given is None or isinstance(given, str):
        return given
    listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)) else (given,)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{name}= must be a pattern such as 'encoder.*', or a list of patterns, not {described(pattern)}"
            )
    return listed


def described(value: Any) -> str:
    """Return a short text for a value in an error, with its type."""
    return f"{short(value)} ({type(value).__name__})"


def a(value: Any) -> str:
    """Return the type of a value with its article.

    >>> a(3), a({})
    ('an int', 'a dict')
    """
    name = type(value).__name__
    # An acronym (SGD, LBFGS) is spelt out.
    return f"an {name}" if name[0] in ("FHLMNRSXAEIO" if name.isupper() else "aeioAEIO") else f"a {name}"
