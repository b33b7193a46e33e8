"""The saves of a manager: of one process or of all ranks, at once or in the background."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, get_args

from statedict.errors import AfterSaveError, SaveError
from statedict.state import arguments

from .. import _distributed, _keep, _objects, _random
from .._keep import Keep
from .._progress import Meter, watched
from .._ranks import ranks
from .._run import TrainingRun
from . import _save, _together
from ._background import Background, Busy
from ._background_copy import CopyMemory, copied, copied_of_rank
from ._frozen import frozen_names
from ._ownership import Ownership
from ._together import SaveOfRanks

if TYPE_CHECKING:
    from statedict.torch import RankConnections

FollowUp = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """The arguments of a CheckpointManager that say how it saves."""

    keep: Keep
    asynchronous: bool
    busy: Busy
    durable: bool
    random: bool
    timeout: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.timeout, timedelta):
            given = arguments.described(self.timeout)
            raise TypeError(f"timeout= must be a timedelta such as timedelta(minutes=30), not {given}")
        if self.busy not in get_args(Busy):
            raise ValueError(f'busy= must be "wait" or "replace", not {self.busy!r}')


class Saver:
    """Saves, one after the other; the caller holds the mutex of `ownership`."""

    def __init__(self, run: TrainingRun, options: SaveOptions, background: Background, ownership: Ownership) -> None:
        self._run = run
        self._options = options
        self._background = background
        self._ownership = ownership
        self._memory: list[CopyMemory] = []
        self._group: RankConnections | None = None
        self._numbers = count()
        self._meter = Meter("")

    def save(self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, follow_up: FollowUp) -> None:
        """Save a checkpoint: see `CheckpointManager.save`. The thread that wrote it calls `follow_up` with its step."""
        save = self._save_together if _distributed.is_needed(given.stateful.values()) else self._save_alone
        save(step, metrics, given, follow_up)

    def wait(self) -> None:
        """Wait for the saves in the background; raise the error of a failed one."""
        if self._background.running:
            with self._meter.shown():
                self._background.settle()
        self._background.raise_error()

    def close(self) -> None:
        """Close the connections to the other ranks."""
        group, self._group = self._group, None
        if group is not None:
            group.close()

    def forget(self) -> None:
        """Drop the memory and the connections, which belong to the parent. Called in a forked child."""
        self._memory = []
        self._group = None

    # one process

    def _save_alone(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, follow_up: FollowUp
    ) -> None:
        if self._options.busy == "wait":
            self._background.wait()
        self._ownership.hold(seize=True)
        if not self._options.asynchronous:
            content = self._content(step, metrics, given)
            meter = _meter(content)
            with meter.shown():
                self._write(content, meter, follow_up)
            return
        self._background.raise_error()
        content, kept = copied(self._content(step, metrics, given, copied=True), self._spare())
        # The progress bar is shown only by `wait`.
        meter = self._meter = _meter(content)
        self._submit(step, lambda: self._write(content, meter, follow_up), kept)

    def _content(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, *, copied: bool = False
    ) -> _save.Content:
        """Return the content of this save. `copied`: the caller copies it at once, so it may contain the live parameters."""
        states = _objects.states(given, random=self._options.random, copied=copied)
        frozen = {name: frozen_names(value, states[name]) for name, value in given.stateful.items()}
        return _save.Content(step, metrics, given.plain, states, _keep.dump(self._options.keep), frozen)

    def _write(self, content: _save.Content, meter: Meter, follow_up: FollowUp) -> None:
        with self._run.translated():
            # Retry the deletions that failed in an earlier save.
            self._run.tidy()
            _save.write(self._run, content, meter, durable=self._options.durable)
        follow_up(content.step)

    # all ranks

    def _save_together(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, follow_up: FollowUp
    ) -> None:
        """Save with all ranks. An error on this rank is passed to the others by the job, in the background too.

        So every rank makes the same saves, and if an asynchronous save fails, all ranks raise at the same call.
        """
        if self._options.busy == "wait":
            self._background.wait()
        save, memory = self._save_of_ranks(follow_up), self._spare() if self._options.asynchronous else CopyMemory()
        meter = Meter("")
        try:
            content = self._content_of_rank(step, metrics, given)
            if self._options.asynchronous:
                content, memory = copied_of_rank(content, memory)
            else:
                content = content.uncopied()
            meter = _meter(content.own)
        except BaseException as error:  # noqa: BLE001  # raised by the job
            job = partial(save.fail, error)
            # It may have been interrupted while it overwrote an earlier copy.
            memory = CopyMemory()
        else:
            job = partial(self._write_together, save, content, meter)
        if not self._options.asynchronous:
            with meter.shown():
                job()
            return
        self._meter = meter
        self._submit(step, job, memory)
        if self._options.busy == "replace":
            # Only now: another rank may not know of the error yet, and takes part in this save.
            self._background.raise_error()

    def _save_of_ranks(self, follow_up: FollowUp) -> SaveOfRanks:
        from statedict.torch import RankConnections

        if self._group is None or not self._group.is_current:
            self._group = RankConnections(self._options.timeout)
        return SaveOfRanks(
            self._run, self._group, next(self._numbers), durable=self._options.durable,
            hold=partial(self._ownership.hold, seize=True), follow_up=follow_up,
        )  # fmt: skip

    def _content_of_rank(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments
    ) -> _together.RankContent:
        inside, rest = _distributed.split(given)
        states = _objects.states(rest, random=False)
        _distributed.refuse_shards(states)
        differing = {name: states[name] for name, value in rest.stateful.items() if _objects.differs_by_rank(value)}
        alone = states if ranks()[0] == 0 else {}
        own = _save.Content(step, metrics, given.plain, alone, _keep.dump(self._options.keep))
        generators = _random.read() if self._options.random else None
        shared = _distributed.rank_states(inside, copied=self._options.asynchronous)
        return _together.RankContent(own, shared, _together.RankParts(), generators, deepcopy(differing))

    def _write_together(self, save: SaveOfRanks, content: _together.RankContent, meter: Meter) -> None:
        if not save.write(content, meter) and self._options.busy == "wait":
            raise SaveError(
                f"{self._run.name}: other ranks have made a later save than step {content.own.step}: every rank must make "
                "the same saves"
            )

    # in the background

    def _spare(self) -> CopyMemory:
        """The memory of an earlier copy."""
        return self._memory.pop() if self._memory else CopyMemory()

    def _submit(self, step: int, job: Callable[[], None], memory: CopyMemory) -> None:
        self._background.submit(
            lambda: self._run_and_return(step, job, memory), dropped=lambda: self._memory.append(memory)
        )

    def _run_and_return(self, step: int, job: Callable[[], None], memory: CopyMemory) -> None:
        try:
            job()
        except AfterSaveError:
            raise
        except BaseException as error:
            error.add_note(f"{self._run.name}: step {step} was not saved")
            raise
        finally:
            self._memory.append(memory)


def _meter(content: _save.Content) -> Meter:
    # Computing the size visits every tensor, so it is done only if a bar can be shown.
    return Meter(f"saving step {content.step}", _save.nbytes(content) if watched() else 0)
