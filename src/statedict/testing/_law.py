"""Laws: tests that are generators of the cases that break a rule; and the processor time that one case may take."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import wraps
from itertools import islice
from typing import TypeVar

import pytest

from statedict.files import system

# Cases that a failure shows.
SHOWN = 5
# Seconds of processor time (not of the clock: the machine may be busy) after which reading a small file counts as a hang.
HANGS = 20

Suite = TypeVar("Suite")


class HangError(BaseException):
    """Reading a small file took too long. Not an Exception, so that a reader does not translate it."""


def law(check: Callable[[Suite], Iterator[str]]) -> Callable[[Suite], None]:
    """Make a test of a generator: it fails with the first sentence of the docstring and the cases that were generated.

    >>> class Suite:
    ...     @law
    ...     def test_numbers_are_even(self):
    ...         "Every number is even."
    ...         yield from (f"{n} is odd" for n in (2, 3) if n % 2)
    >>> Suite().test_numbers_are_even()
    Traceback (most recent call last):
        ...
    Failed: Every number is even.
      3 is odd
    """

    @wraps(check)
    def test(suite: Suite) -> None:
        __tracebackhide__ = True
        try:
            cases = list(islice(check(suite), SHOWN))
        except Exception as error:
            error.add_note(f"The law that was tested: {rule_of(check)}")
            raise
        if cases:
            pytest.fail("\n  ".join([rule_of(check), *cases]), pytrace=False)

    return test


def rule_of(check: Callable[..., object]) -> str:
    """Return the first sentence of a docstring."""
    text = " ".join((inspect.getdoc(check) or "").split())
    return re.split(r"(?<=\.) ", text)[0]


def broken(suite: object, name: str) -> Iterator[str]:
    """Return the cases that break the law `name` of a suite."""
    check: Callable[[object], Iterator[str]] = getattr(type(suite), name).__wrapped__
    return check(suite)


def no_hang(seconds: float = HANGS) -> AbstractContextManager[None]:
    """Raise HangError in this block after `seconds` of processor time, where the system can interrupt it."""
    return system.interrupted_after(seconds, HangError)
