"""Pause Python's garbage collector while many objects are created that are not garbage.

Otherwise it would traverse all of them repeatedly (rows `many` of docs/performance.md).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# With fewer new objects, the first collection after the pause is fast enough.
_MANY = 10_000


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause garbage collection, unless it is already disabled."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _resume()


def without_collector(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it runs with garbage collection paused; faster than the context manager as a decorator."""

    @wraps(function)
    def paused(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            _resume()

    return paused


def _resume() -> None:
    # Freezing and unfreezing moves the new objects to the oldest generation without traversing them, so that the next
    # collection is fast. It is not done if the program has frozen objects itself, because it would unfreeze them.
    if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
    gc.enable()
