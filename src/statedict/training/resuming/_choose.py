"""Which checkpoint to resume: of this run or another, the newest valid one, a step, or the best by a metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from statedict.errors import UnknownFormatError, UnknownNameError
from statedict.state import arguments, nearest

from .. import _objects, _select
from .._keep import RunPolicy, Saved
from .._run import TrainingRun, above, open_run
from ..saving._ownership import Ownership
from . import _find
from ._retry import retried


class Choice(NamedTuple):
    """The request to `resume`: which checkpoint, and how.

    Attributes:
        run: the directory of another run; None for the manager's own.
        at: a step or `best(…)`; None for the newest valid checkpoint.
    """

    run: TrainingRun | None
    at: int | RunPolicy | None

    def find(self, own: TrainingRun, ownership: Ownership, *, deep: bool) -> _find.Found:
        """Find the checkpoint; `deep` as for `verify`.

        Only in the manager's own run, and without `at`, the run may be empty or be changed.
        """
        run = self.run or own
        if self.at is not None:
            step = one_of(retried(run.saved), self.at, run.name).step if not isinstance(self.at, int) else self.at
            return _find.find_step(run, step, deep=deep)
        if self.run is None:
            return _find.find(own, ownership, deep=deep)
        found = _find.newest(run, deep=deep)
        if found.path is None and not found.passed_over:
            what = "has no checkpoints" if run.exists() else "does not exist"
            raise UnknownFormatError(f"the run to resume from {what}", file=run.name)
        return found


def choice(own: TrainingRun, run: Any, at: Any) -> Choice:
    """The arguments of `resume`, checked. `own` is the manager's run.

    Raises TypeError or ValueError for an argument that does not name a run or a checkpoint, or if both do but differ.
    """
    other = None if run is None else _run(run)
    if isinstance(at, Saved):
        place = above(at.path)
        if other is not None and place != other.at:
            raise ValueError(f"the checkpoint {at.path} is not in the run {other.name}")
        return Choice(None if place == own.at else open_run(place), at.step)
    return Choice(other, None if at is None else _checked(at))


def one_of(saved: Sequence[Saved], at: Any, run: str) -> Saved:
    """Return the checkpoint of a step, or the best one (`at=best(…)`). Raises UnknownNameError if there is none."""
    at = _checked(at)
    steps = {one.step: one for one in saved}
    if isinstance(at, int):
        if at not in steps:
            raise UnknownNameError(str(at), among=f"the steps of {run}", near=list(map(str, steps))[-3:])
        return steps[at]
    metric, _, mode = at.arguments
    for step in _select.best(saved, metric, 1, mode):
        return steps[step]
    known = sorted({name for one in saved for name in one.metrics})
    raise UnknownNameError(metric, among=f"the metrics of {run}", near=nearest(metric, known, 3) or known[:3])


def _checked(at: Any) -> int | RunPolicy:
    if isinstance(at, RunPolicy):
        if at.name != "best":
            raise ValueError(f'{at} does not select one checkpoint; pass a step, a checkpoint, or best("metric")')
        return at
    if isinstance(at, (str, os.PathLike)):
        raise TypeError(
            f'at= must be a step, a checkpoint, or best("metric"), not {at!r}; '
            f"to resume from another run, pass its directory first: resume({str(at)!r})"
        )
    return _objects.checked_step(at)


def _run(run: Any) -> TrainingRun:
    if not isinstance(run, (str, os.PathLike)):
        hint = (
            f"to select a step, pass at={run}" if isinstance(run, int) else "pass objects by name: resume(model=model)"
        )
        raise TypeError(f"the first argument is the directory of another run, not {arguments.described(run)}; {hint}")
    return open_run(run)
