"""Putting an object back as it was when something fails half-way.

In go objects whose attributes are about to change; when an exception leaves the `with` block, every attribute and
container that could be reached from them has its old contents again, whoever changed it. The rule guarded: all or
nothing, also through hooks and loaders that are not ours.

Theory of operation: what is reachable is recorded by shallow copies, container by container, before anything runs.
Tensors are copied only where they are small or named (`tensors`), because a trainer reaches its whole dataset; an
optimizer's own tensors are never copied by reaching them: its loader replaces them, it does not write into them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch

from ..modules._backup import keep
from ..snapshots._copy_tensors import PLAIN_TYPES

# A scale or a counter is below this; weights are above.
SMALL = 1 << 16
# A container longer than this holds data, not settings: it is put back, but what is in it is not looked into.
LONG = 100_000
_CLOSED = (type, FunctionType, MethodType, BuiltinFunctionType, ModuleType)
# Their objects lead to the whole process, and load no state.
_ELSEWHERE = {"logging", "threading", "multiprocessing", "concurrent", "asyncio", "queue", "weakref"}
Restore = Callable[[], None]


@contextmanager
def unchanged_on_error(*roots: Any, tensors: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """Put `roots`, all that they reach, and the elements of `tensors` back if the block raises.

    >>> box = {"a": [1]}
    >>> try:
    ...     with unchanged_on_error(box):
    ...         box["a"].append(2)
    ...         raise ValueError
    ... except ValueError:
    ...     print(box)
    {'a': [1]}
    """
    restores, small = _remember(roots)
    restores.append(keep([*small, *tensors]))
    try:
        yield
    except BaseException as error:
        for restore in restores:
            restore()
        error.add_note("Nothing was changed: all that the attempt had touched was put back.")
        raise


def _remember(roots: Iterable[Any]) -> tuple[list[Restore], list[torch.Tensor]]:
    """How to restore every container within reach, and the small tensors that were seen."""
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
            stack.extend((child, inside) for child in children)
    return restores, small


def _is_small(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in PLAIN_TYPES and tensor.layout is torch.strided
    return plain and tensor.untyped_storage().nbytes() <= SMALL


def _children(value: Any, restores: list[Restore]) -> list[Any]:
    """What lies in a container or an object, whose present contents are noted in `restores`."""
    if isinstance(value, dict):
        restores.append(_mapping(value))
        return list(value.values())
    if isinstance(value, (list, deque)):
        restores.append(_sequence(value))
        return list(value)
    if isinstance(value, set):
        restores.append(_set(value))
        return []
    if isinstance(value, tuple):
        return list(value)
    if _has_settings(value):
        restores.append(_mapping(value.__dict__))
        return list(value.__dict__.values())
    return []


def _has_settings(value: Any) -> bool:
    home = type(value).__module__.partition(".")[0]
    return hasattr(value, "__dict__") and not isinstance(value, _CLOSED) and home not in _ELSEWHERE


def _mapping(value: dict[Any, Any]) -> Restore:
    before = dict(value)

    def restore() -> None:
        value.clear()
        value.update(before)

    return restore


def _sequence(value: list[Any] | deque[Any]) -> Restore:
    before = list(value)

    def restore() -> None:
        value.clear()
        value.extend(before)

    return restore


def _set(value: set[Any]) -> Restore:
    before = set(value)

    def restore() -> None:
        value.clear()
        value.update(before)

    return restore
