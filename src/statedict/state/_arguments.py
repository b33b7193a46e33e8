"""Arguments of public functions, checked where they come in: the error names the argument, what it is, and what was given.

Without this the first code that uses a wrong value raises, somewhere below, in words about something else.
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
            raise TypeError(f"{name}= is True or False, not {described(value)}")


def texts(**values: Any) -> None:
    """Raise TypeError for a value that is not text."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name}= is text, not {described(value)}")


def maybe(check: Callable[..., None], **values: Any) -> None:
    """The same check for values that may be None."""
    check(**{name: value for name, value in values.items() if value is not None})


def mappings(**values: Any) -> None:
    """Raise TypeError for a value that is not a mapping."""
    for name, value in values.items():
        if not isinstance(value, Mapping):
            raise TypeError(f"{name}= is a mapping, such as a dict, not {described(value)}")


def patterns(name: str, given: Any) -> Any:
    """Patterns that were given as an argument: text, a tuple, or None; raises TypeError for anything else."""
    if given is None or isinstance(given, str):
        return given
    listed = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)) else (given,)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise TypeError(f"{name}= is a pattern of names such as 'encoder.*', or a list, not {described(pattern)}")
    return listed


def described(value: Any) -> str:
    """A value as an error shows it: shortly, with its type."""
    return f"{short(value)} ({type(value).__name__})"
