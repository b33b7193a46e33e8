"""Threads of a process on the simulated computer, in the place of those in which the manager saves in the background.

Only one thread runs at any time, so a condition needs no lock: to wait for it is to let others run until it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import patch

from statedict.training.saving import _background

from .calls import CALLS


class SimulatedThread:
    """A thread of the process whose turn it is."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name

    def start(self) -> None:
        process = CALLS.running
        assert process is not None
        process.computer.spawn(process, self._name, self._target)


class SimulatedCondition:
    """What a thread waits for."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def wait_for(self, is_over: Callable[[], bool]) -> None:
        process = CALLS.running
        if process is not None:
            process.computer.wait(process, is_over)

    def notify_all(self) -> None: ...


@contextmanager
def simulated_threads() -> Iterator[None]:
    """Let saves in the background take turns with everything else."""
    replaced = SimpleNamespace(Thread=SimulatedThread, Condition=SimulatedCondition)
    with patch.object(_background, "threading", replaced):
        yield
