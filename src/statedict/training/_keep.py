"""Retention policies: which checkpoints of a run to keep. A policy is a value, and a pure function of the checkpoints.

    keep = any_of(last(3), every(10_000), best("val_loss", n=2))

A policy takes the existing checkpoints and returns the steps to keep. The newest checkpoint is always kept. Any function
can be a policy; those made here can also be printed, explained and stored in a manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest, nsmallest
from math import isnan
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from statedict.state import arguments


@dataclass(frozen=True, slots=True)
class Saved:
    """One complete checkpoint of a run.

    Attributes:
        step: the training step it was saved at.
        path: its directory.
        metrics: as given to `save`.
        time: when it was saved (UTC).
        nbytes: total size of its files, including files shared with other checkpoints.

    >>> import tempfile
    >>> from statedict import CheckpointManager
    >>> with CheckpointManager(tempfile.mkdtemp(), random=False) as manager:
    ...     _ = manager.save(3, {"loss": 0.5}, epoch=1)
    ...     print(manager.latest.step, manager.latest.metrics)
    3 {'loss': 0.5}
    """

    step: int
    path: Path
    metrics: Mapping[str, Any]
    time: datetime
    nbytes: int


Keep = Callable[[Sequence[Saved]], set[int]]


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """A built-in policy. Its repr is the call that made it; `dump` and `parse` convert it to and from JSON."""

    name: str
    arguments: tuple[Any, ...] = ()

    def __call__(self, saved: Sequence[Saved]) -> set[int]:
        return POLICIES[self.name][1](saved, *self.arguments)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


def last(n: int) -> Keep:
    """Keep the newest `n`.

    Raises ValueError if `n` is below 1: a run keeps at least its newest checkpoint.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(last(2)(saved))
    [15, 20]
    """
    return RetentionPolicy("last", (_at_least_one(n, "last(n)"),))


def every(steps: int) -> Keep:
    """Keep the checkpoints whose step is a multiple of `steps`.

    Raises ValueError if `steps` is below 1.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(every(10)(saved))
    [10, 20]
    """
    return RetentionPolicy("every", (_at_least_one(steps, "every(steps)"),))


def best(metric: str, n: int = 1, mode: Literal["min", "max"] = "min") -> Keep:
    """Keep the `n` checkpoints with the lowest (`mode="max"`: highest) value of `metric`; the newer one of two equal ones.

    Checkpoints in which the metric is missing or NaN are not kept.

    >>> any_of(last(3), best("accuracy", mode="max"))
    any_of(last(3), best('accuracy', 1, 'max'))
    """
    if not isinstance(metric, str):
        raise ValueError(f"best(metric) needs the name of a metric, not {metric!r}")
    if mode not in ("min", "max"):
        raise ValueError(f'mode must be "min" or "max", not {mode!r}')
    return RetentionPolicy("best", (metric, _at_least_one(n, "best(metric, n)"), mode))


def all_steps() -> Keep:
    """Keep every checkpoint.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(all_steps()(saved))
    [10, 15, 20]
    """
    return RetentionPolicy("all_steps")


def any_of(*policies: Keep | int) -> Keep:
    """Keep the checkpoints that any of the policies keeps. A number n means `last(n)`.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(any_of(last(1), every(10))(saved))
    [10, 20]
    """
    return RetentionPolicy("any_of", tuple(map(policy, policies)))


def policy(keep: Keep | int) -> Keep:
    """Return the policy that a caller passed: a function of the checkpoints, or a number n for `last(n)`.

    Raises TypeError for any other value, ValueError for a number below 1.

    >>> policy(3)
    last(3)
    """
    if isinstance(keep, Integral) and not isinstance(keep, bool):
        return last(int(keep))
    if not callable(keep) or isinstance(keep, type):
        raise TypeError(
            f"keep= must be a policy such as last(3), or a number of checkpoints, not {arguments.described(keep)}"
        )
    return keep


def dump(keep: Keep) -> list[Any] | None:
    """A policy as JSON values (`["any_of", ["last", 3], …]`); None if it contains a function of the caller's."""
    if not isinstance(keep, RetentionPolicy):
        return None
    given = list(map(dump, keep.arguments)) if keep.name == "any_of" else list(keep.arguments)
    return None if None in given else [keep.name, *given]


def parse(written: Any) -> Keep:
    """The policy that `dump` wrote; raises ValueError for any other value."""
    try:
        name, *given = written
        return POLICIES[name][0](*(map(parse, given) if name == "any_of" else given))
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{written!r} is not a retention policy (expected a list such as ['last', 3])") from error


def reasons(saved: Sequence[Saved], keep: Keep) -> dict[int, list[str]]:
    """For each step, the policies that keep it, as text. The list is empty for the steps that `expired` returns.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> reasons(saved, any_of(last(1), every(10)))
    {10: ['every(10)'], 15: [], 20: ['last(1)', 'every(10)']}
    """
    rules = list(_parts(keep))
    found: dict[int, list[str]] = {
        s.step: [str(rule) for rule in rules if s.step in rule(saved)] for s in sorted(saved, key=lambda s: s.step)
    }
    for step in last(1)(saved):
        found[step] = found[step] or ["the newest is always kept"]
    return found


def _parts(keep: Keep) -> Iterator[Keep]:
    if isinstance(keep, RetentionPolicy) and keep.name == "any_of":
        for part in keep.arguments:
            yield from _parts(part)
    else:
        yield keep


def ranked(saved: Sequence[Saved], metric: str) -> list[Saved]:
    """The checkpoints in which `metric` is a number."""
    return [s for s in saved if _is_number(s.metrics.get(metric))]


def _is_number(value: Any) -> bool:
    # `isnan` raises OverflowError for a large integer.
    return isinstance(value, int) or (isinstance(value, float) and not isnan(value))


def expired(saved: Sequence[Saved], keep: Keep) -> list[Saved]:
    """The checkpoints that a policy does not keep, oldest first. The newest is never among them.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> [each.step for each in expired(saved, last(1))]
    [10, 15]
    """
    kept = keep(saved) | last(1)(saved)
    return sorted((s for s in saved if s.step not in kept), key=lambda s: s.step)


def _at_least_one(n: int, what: str) -> int:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"{what} needs an integer of at least 1, not {n!r}")
    return int(n)


def _last(saved: Sequence[Saved], n: int) -> set[int]:
    return set(nlargest(n, (s.step for s in saved)))


def _every(saved: Sequence[Saved], steps: int) -> set[int]:
    return {s.step for s in saved if s.step % steps == 0}


def _best(saved: Sequence[Saved], metric: str, n: int, mode: str) -> set[int]:
    pick = {"min": nsmallest, "max": nlargest}[mode]
    newer = {"min": -1, "max": 1}[mode]
    return {s.step for s in pick(n, ranked(saved, metric), key=lambda s: (s.metrics[metric], newer * s.step))}


def _all_steps(saved: Sequence[Saved]) -> set[int]:
    return {s.step for s in saved}


def _any_of(saved: Sequence[Saved], *policies: Keep) -> set[int]:
    return set().union(*(keep(saved) for keep in policies))


# name → the function that makes the policy from its arguments, and the one that selects the steps.
POLICIES: dict[str, tuple[Callable[..., Keep], Callable[..., set[int]]]] = {
    "last": (last, _last),
    "every": (every, _every),
    "best": (best, _best),
    "all_steps": (all_steps, _all_steps),
    "any_of": (any_of, _any_of),
}
