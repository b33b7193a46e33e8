"""Python's garbage collector, paused while many objects are made of which none is garbage.

It would look through all of them again and again: a third of the time of reading or writing 32,000 tensors, two thirds of
that of loading them into a model.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Below this the first collection after the pause is too quick to matter.
_MANY = 10_000


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause collection, unless somebody else has already."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _go_on()


def without_collector(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run with collection paused: 0.3 µs a call, where the context manager as a decorator takes 2."""

    @wraps(function)
    def paused(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            _go_on()

    return paused


def _go_on() -> None:
    # Freezing and unfreezing makes the new objects old ones without looking at them; the next collection would need
    # 60 ms for 32,000 tensors. A program that has frozen objects itself keeps them so.
    if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()
    gc.enable()
