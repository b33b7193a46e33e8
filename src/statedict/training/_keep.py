"""Retention policies: which checkpoints of a run to keep. A policy is a value, and a pure function of the checkpoints.

    keep = any_of(last(3), every(10_000), best("val_loss", n=2))

A policy takes the existing checkpoints and returns the steps to keep. The newest checkpoint and pinned ones are always kept.
Any function can be a policy; those made here can also be printed, explained and stored in a manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

from statedict.formats import byte_count
from statedict.state import Section, arguments, as_html

from . import _select

# Where a checkpoint, or a file of one, is: a path, or the URL of a prefix in an object store.
Place = Path | str


@dataclass(frozen=True, slots=True)
class Saved:
    """One complete checkpoint of a run.

    Attributes:
        step: the training step it was saved at.
        path: its directory, or its URL in an object store.
        metrics: as given to `save`.
        time: when it was saved (UTC).
        nbytes: total size of its files, including files shared with other checkpoints.
        pinned: whether it was pinned, and so is kept by every policy.

    >>> import tempfile
    >>> from statedict import CheckpointManager
    >>> with CheckpointManager(tempfile.mkdtemp(), random=False) as manager:
    ...     _ = manager.save(3, {"loss": 0.5}, epoch=1)
    ...     print(manager.latest.step, manager.latest.metrics)
    3 {'loss': 0.5}
    """

    step: int
    path: Place
    metrics: Mapping[str, Any]
    time: datetime
    nbytes: int
    pinned: bool = False

    def __fspath__(self) -> str:
        """Its directory, so that a Saved can be given where a path is: `load_state_dict(model, manager.best("loss"))`."""
        return str(self.path)


class SavedCheckpoints(list[Saved]):
    """A list of checkpoints that notebooks show as a table."""

    def _repr_html_(self) -> str:
        lines = [(f"step {saved.step:,}{' (pinned)' if saved.pinned else ''}", _about(saved)) for saved in self]
        counted = f"{len(self):,} checkpoint{'' if len(self) == 1 else 's'}"
        return as_html(counted, [Section("oldest first:", lines)])


def _about(saved: Saved) -> str:
    numbers = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in saved.metrics.items()
    )
    return ", ".join([*numbers, f"{saved.nbytes / 1e6:,.1f} MB", f"{saved.time:%Y-%m-%d %H:%M}"])


Keep = Callable[[Sequence[Saved]], set[int]]


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """A built-in policy. Its repr is the expression that made it; `dump` and `parse` convert it to and from JSON.

    `every` and `any_of` make policies that also say when to save (`_when.py`).
    """

    name: str
    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, float], ...] = ()

    def __call__(self, saved: Sequence[Saved]) -> set[int]:
        return POLICIES[self.name][1](saved, *self.arguments, **dict(self.named))

    def __repr__(self) -> str:
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.named)]
        return f"{self.name}({', '.join(given)})" if self.name in POLICIES else self.name


def last(n: int) -> RunPolicy:
    """Keep the newest `n`.

    Raises ValueError if `n` is below 1: a run keeps at least its newest checkpoint.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(last(2)(saved))
    [15, 20]
    """
    return RunPolicy("last", (_at_least_one(n, "last(n)"),))


def every(
    steps: int | None = None,
    *,
    days: float | None = None,
    hours: float | None = None,
    minutes: float | None = None,
) -> RunPolicy:
    """Every `steps` steps, or once in a period of time: what to keep (`keep=`), and when to save (`when=`).

    Steps: those that are multiples of `steps`. Time: the oldest checkpoint, and each that was saved at least this long after
    the previous one that is kept; as `when`, at least this long after the last save.

    Raises ValueError if `steps` is below 1, or for both steps and a time.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {}, datetime(2026, 1, 1, 12, step), 0) for step in (10, 15, 20, 25)]
    >>> sorted(every(10)(saved)), sorted(every(minutes=6)(saved))
    ([10, 20], [10, 20])
    """
    time = _duration("every", days=days, hours=hours, minutes=minutes)
    if (steps is None) != bool(time):
        raise ValueError("every() needs either steps or a time: every(1000), every(minutes=30)")
    return RunPolicy("every", () if time else (_at_least_one(steps, "every(steps)"),), time)


def within(*, days: float | None = None, hours: float | None = None, minutes: float | None = None) -> RunPolicy:
    """Keep the checkpoints saved at most this long before the newest one. (So a run that has ended keeps them.)

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {}, datetime(2026, 1, step), 0) for step in (10, 15, 20)]
    >>> sorted(within(days=7)(saved))
    [15, 20]
    """
    time = _duration("within", days=days, hours=hours, minutes=minutes)
    if not time:
        raise ValueError("within() needs a time, such as within(days=7)")
    return RunPolicy("within", (), time)


def at_most(size: int | str, keep: Keep | int | None = None) -> RunPolicy:
    """Keep the newest checkpoints that together take at most `size` (bytes, or text such as `"200GB"`).

    `keep` is another policy: choose only among the checkpoints that it keeps. The newest checkpoint and pinned ones count,
    although they are kept even if they are larger. A file that several checkpoints share counts once for each of them.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {}, datetime.min, 10**9) for step in (10, 15, 20, 25)]
    >>> sorted(at_most("2GB")(saved)), sorted(at_most("3GB", every(10))(saved))
    ([20, 25], [10, 20, 25])
    """
    try:
        byte_count(size)
    except OverflowError as error:
        raise ValueError(f"at_most(size): {size!r} is too large") from error
    return RunPolicy("at_most", (size,) if keep is None else (size, policy(keep)))


def best(metric: str, n: int = 1, mode: Literal["min", "max"] = "min") -> RunPolicy:
    """Keep the `n` checkpoints with the lowest (`mode="max"`: highest) value of `metric`; the newer one of two equal ones.

    Checkpoints in which the metric is missing or NaN are not kept.

    >>> any_of(last(3), best("accuracy", mode="max"))
    any_of(last(3), best('accuracy', 1, 'max'))
    """
    if not isinstance(metric, str):
        raise ValueError(f"best(metric) needs the name of a metric, not {metric!r}")
    if mode not in ("min", "max"):
        raise ValueError(f'mode must be "min" or "max", not {mode!r}')
    return RunPolicy("best", (metric, _at_least_one(n, "best(metric, n)"), mode))


def all_steps() -> RunPolicy:
    """Keep every checkpoint.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(all_steps()(saved))
    [10, 15, 20]
    """
    return RunPolicy("all_steps")


def any_of(*policies: Callable[..., Any] | int) -> RunPolicy:
    """Keep the checkpoints that any of the policies keeps, or save when any says so. A number n means `last(n)`.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> sorted(any_of(last(1), every(10))(saved))
    [10, 20]
    """
    return RunPolicy("any_of", tuple(map(_part, policies)))


def policy(keep: Keep | int) -> Keep:
    """Return the policy that a caller passed: a function of the checkpoints, or a number n for `last(n)`.

    Raises TypeError for any other value, ValueError for a number below 1 and for a policy that only says when to save.

    >>> policy(3)
    last(3)
    """
    made = _part(keep)
    for part in parts(made):
        if isinstance(part, RunPolicy) and part.name not in POLICIES:
            raise ValueError(f"{part} says when to save, not what to keep: pass it as when=")
    return made


def _part(keep: Any) -> Keep:
    if isinstance(keep, Integral) and not isinstance(keep, bool):
        return last(int(keep))
    if not callable(keep) or isinstance(keep, type):
        raise TypeError(
            f"keep= must be a policy such as last(3), or a number of checkpoints, not {arguments.described(keep)}"
        )
    made: Keep = keep
    return made


def dump(keep: Keep) -> list[Any] | None:
    """A policy as JSON values (`["any_of", ["last", 3], …]`); None if it contains a function of the caller's."""
    if not isinstance(keep, RunPolicy):
        return None
    given = [dump(each) if callable(each) else each for each in keep.arguments]
    return None if None in given else [keep.name, *given, *([dict(keep.named)] if keep.named else [])]


def parse(written: Any) -> Keep:
    """The policy that `dump` wrote; raises ValueError for any other value."""
    try:
        name, *given = written
        named = given.pop() if given and isinstance(given[-1], dict) else {}
        return POLICIES[name][0](*(parse(each) if isinstance(each, list) else each for each in given), **named)
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
    kept = [(str(rule), rule(saved)) for rule in parts(keep)]
    found = {
        s.step: ["pinned"] * s.pinned + [rule for rule, steps in kept if s.step in steps]
        for s in sorted(saved, key=lambda s: s.step)
    }
    for step in last(1)(saved):
        found[step] = found[step] or ["the newest is always kept"]
    return found


def parts(policy: Any) -> Iterator[Any]:
    """The policies that `any_of` combines, at any depth; the policy itself if it is not such a combination."""
    if isinstance(policy, RunPolicy) and policy.name == "any_of":
        for part in policy.arguments:
            yield from parts(part)
    else:
        yield policy


def expired(saved: Sequence[Saved], keep: Keep) -> list[Saved]:
    """The checkpoints that a policy does not keep, oldest first. The newest and pinned ones are never among them.

    >>> from datetime import datetime
    >>> from pathlib import Path
    >>> saved = [Saved(step, Path(f"run/{step}"), {"loss": 1 / step}, datetime.min, 0) for step in (10, 15, 20)]
    >>> [each.step for each in expired(saved, last(1))]
    [10, 15]
    """
    kept = keep(saved) | last(1)(saved)
    return sorted((s for s in saved if s.step not in kept and not s.pinned), key=lambda s: s.step)


def _at_least_one(n: Any, what: str) -> int:
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"{what} needs an integer of at least 1, not {n!r}")
    return int(n)


def _duration(what: str, **given: float | None) -> tuple[tuple[str, float], ...]:
    """The given parts of a duration (days, hours, minutes); raises ValueError if it is not positive or too long."""
    named = {unit: number for unit, number in given.items() if number is not None}
    try:
        # Exactly as JSON preserves them.
        named = {unit: number if type(number) is int else float(number) for unit, number in named.items()}
        if named and timedelta(**named) <= timedelta():
            raise ValueError("it must be longer than 0")
    except (TypeError, ValueError, OverflowError) as error:
        told = ", ".join(f"{unit}={number!r}" for unit, number in named.items())
        raise ValueError(f"{what}({told}) is not a valid duration: {error}") from error
    return tuple(named.items())


# name → the function that makes the policy from its arguments, and the one that selects the steps.
POLICIES: dict[str, tuple[Callable[..., Keep], Callable[..., set[int]]]] = {
    "last": (last, _select.last),
    "every": (every, _select.every),
    "within": (within, _select.within),
    "at_most": (at_most, _select.at_most),
    "best": (best, _select.best),
    "all_steps": (all_steps, _select.all_steps),
    "any_of": (any_of, _select.any_of),
}
