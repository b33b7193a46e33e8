"""Restore an object if a load into it fails half-way.

If an exception leaves the `with` block, every attribute and container reachable from the objects has its old contents again,
whichever code changed it (hooks and foreign loaders included).

Theory of operation: before anything runs, each reachable container is recorded by a shallow copy. Tensors are copied only if
they are small or passed as `tensors`, because a trainer may reach its whole dataset. The tensors of an optimizer are never
copied for being reachable: its loader replaces them and does not write into them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from ..modules._backup import keep
from ..snapshots._copy_tensors import PLAIN_TYPES

# Bytes. Scales and counters are smaller than this, weights are larger.
SMALL = 1 << 16
# A longer container holds data, not settings: it is recorded, but its elements are not visited.
LONG = 100_000
_CLOSED = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
# Objects of these modules lead to the whole process, and are not loaded.
_EXCLUDED = {"logging", "threading", "multiprocessing", "concurrent", "asyncio", "queue", "weakref"}
Restore = Callable[[], None]


@contextmanager
def unchanged_on_error(*roots: Any, tensors: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """If the block raises, restore `roots`, everything reachable from them, and the elements of `tensors`.

    >>> box = {"a": [1]}
    >>> try:
    ...     with unchanged_on_error(box):
    ...         box["a"].append(2)
    ...         raise ValueError
    ... except ValueError:
    ...     print(box)
    {'a': [1]}
    """
    restores, small = _record(roots)
    restores.append(keep([*small, *tensors]))
    try:
        yield
    except BaseException as error:
        for restore in restores:
            restore()
        error.add_note("Nothing was changed: everything that the attempt had modified was restored.")
        raise


def _record(roots: Iterable[Any]) -> tuple[list[Restore], list[torch.Tensor]]:
    """Record every reachable container; return functions that restore them, and the small tensors found."""
    stack: list[tuple[Any, bool]] = [(root, True) for root in roots]
    seen: set[int] = set()
    restores: list[Restore] = []
    small: list[torch.Tensor] = []
    while stack:
        value, with_tensors = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if with_tensors and _is_small(value):
                small.append(value)
            continue
        children = _children(value, restores)
        inside = with_tensors and not isinstance(value, torch.optim.Optimizer)
        if len(children) <= LONG:
            # The tensors of an optimizer's state are most of what it reaches.
            stack.extend((child, inside) for child in children if inside or type(child) not in PLAIN_TYPES)
    return restores, small


def _is_small(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in PLAIN_TYPES and tensor.layout is torch.strided
    return plain and tensor.untyped_storage().nbytes() <= SMALL


def _children(value: Any, restores: list[Restore]) -> list[Any]:
    """The elements of a container or attributes of an object; records its contents in `restores`."""
    if isinstance(value, dict):
        restores.append(partial(_refilled, value, dict(value), value.update))
        return list(value.values())
    if isinstance(value, (list, deque)):
        restores.append(partial(_refilled, value, list(value), value.extend))
        return list(value)
    if isinstance(value, set):
        restores.append(partial(_refilled, value, set(value), value.update))
        return []
    if isinstance(value, tuple):
        return list(value)
    if _has_settings(value):
        return _children(value.__dict__, restores)
    return []


def _has_settings(value: Any) -> bool:
    home = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, _CLOSED) and home not in _EXCLUDED


def _refilled(value: Any, before: Any, fill: Callable[[Any], None]) -> None:
    value.clear()
    fill(before)
