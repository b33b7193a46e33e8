"""When to save: the policies that `CheckpointManager.should_save` asks.

    when = any_of(every(minutes=30), every(10_000), on_preemption)

`every` and `any_of` are those of `_keep.py`. Any function of the step can be a part.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from statedict.state import arguments

from ._keep import RunPolicy, parts

When = Callable[[int], bool] | RunPolicy

on_preemption = RunPolicy("on_preemption")
"""When to save: at the next step after SIGTERM has arrived. The process ends after that save (see `should_save`)."""


class Moment(NamedTuple):
    """What the answer to "save now?" depends on.

    Attributes:
        step: the training step.
        seconds: the time since the last save, or since the manager was created.
        preempted: whether SIGTERM has arrived.
    """

    step: int
    seconds: float
    preempted: bool


def checked(when: When) -> When:
    """Return the policy that a caller passed as `when=`; raises TypeError or ValueError if it does not say when to save."""
    for part in parts(when):
        if isinstance(part, RunPolicy) and part.name not in DUE:
            raise ValueError(f"{part} says what to keep, not when to save: pass it as keep=")
        if not callable(part) or isinstance(part, type):
            raise TypeError(f"when= must be a policy such as every(minutes=30), not {arguments.described(part)}")
    return when


def is_due(when: When, moment: Moment) -> bool:
    """Whether any part of a policy asks for a save."""
    return any(_is_due(part, moment) for part in parts(when))


def saves_on_preemption(when: When | None) -> bool:
    """Whether SIGTERM makes a save."""
    return on_preemption in parts(when)


def needs_agreement(when: When) -> bool:
    """Whether the ranks of a job could come to different answers: steps are the same on all ranks, clocks are not."""
    return not all(isinstance(part, RunPolicy) and part.name == "every" and part.arguments for part in parts(when))


def _is_due(part: Any, moment: Moment) -> bool:
    if not isinstance(part, RunPolicy):
        return bool(part(moment.step))
    return DUE[part.name](moment, *part.arguments, **dict(part.named))


def _every(moment: Moment, steps: int = 0, **time: float) -> bool:
    return moment.step % steps == 0 if steps else moment.seconds >= timedelta(**time).total_seconds()


# name → whether a policy asks for a save, given the moment and the policy's arguments.
DUE: dict[str, Callable[..., bool]] = {"every": _every, "on_preemption": lambda moment: moment.preempted}
