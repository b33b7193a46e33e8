"""When a manager's next save is due: by its policy, by the time since the last save, and by SIGTERM."""

from __future__ import annotations

from functools import partial

from .. import _clock, _distributed, _when
from .._ranks import ranks
from .._when import Moment, When
from ._sigterm import OnSigterm


class Schedule:
    """Answers `should_save`, and ends the process after the save that SIGTERM has asked for.

    With several processes, all ranks call its methods, and get the same answers.
    """

    def __init__(self, when: When | None, on_sigterm: OnSigterm | None) -> None:
        self._when = when
        self._on_sigterm = on_sigterm
        self._last = _clock.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save at this step; raises ValueError without a policy."""
        if self._when is None:
            raise ValueError("should_save() needs a policy: CheckpointManager(…, when=every(minutes=30))")
        moment = Moment(step, _clock.monotonic() - self._last, self._preempted())
        asked = partial(_when.is_due, self._when, moment)
        if not _when.needs_agreement(self._when):
            return asked()
        return _distributed.on_any(asked if ranks()[0] == 0 else lambda: moment.preempted)

    def saved(self) -> None:
        """Note that a save has been made (or, asynchronously, submitted). If SIGTERM has arrived, it was the last one."""
        self.restart()
        if self._on_sigterm and self._on_sigterm.saves_first and _distributed.on_any(self._preempted):
            self._on_sigterm.saved()

    def restart(self) -> None:
        """Measure the time from now."""
        self._last = _clock.monotonic()

    def _preempted(self) -> bool:
        return self._on_sigterm is not None and self._on_sigterm.preempted
