"""CheckpointManager: save a training run's checkpoints and resume from them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from statedict.errors import AfterSaveError, FormatError, LoadError, SaveError, StateDictError
from statedict.state import have_room

from . import _distributed, _keep, _objects, _random, _select, _when
from ._keep import Keep, RunPolicy, Saved, expired, last
from ._progress import Meter, watched
from ._run import open_run
from ._when import When
from .resuming import _find
from .resuming._choose import choice, one_of
from .resuming._find import Resumed
from .resuming._restore import FoundCheckpoint
from .resuming._retry import retried
from .saving import _save, _together
from .saving._after_save import AfterSave
from .saving._background import Background, Busy
from .saving._background_copy import CopyMemory, copied, copied_of_rank
from .saving._frozen import frozen_names
from .saving._ownership import Ownership
from .saving._schedule import Schedule
from .saving._sigterm import OnSigterm
from .saving._together import SaveOfRanks

if TYPE_CHECKING:
    from statedict.formats import Limits
    from statedict.torch import RankConnections

T = TypeVar("T")


class CheckpointManager:
    """Save a run's checkpoints in a directory, and resume from them.

    Args:
        directory: the run's directory, or its URL in an object store (`s3://bucket/run`); the first save creates it. Only
            one manager at a time can save in it.
        keep: which checkpoints to keep (`last`, `every`, `best`, `within`, `at_most`, `any_of`; 3 means `last(3)`). The
            newest is always kept, as are pinned ones, and a checkpoint is deleted only after a newer one is durable.
        when: when `should_save` says yes (`every`, `on_preemption`, `any_of`, or a function of the step).
        after_save: called with each checkpoint (a Saved) that is durable, to upload, evaluate or log it. See `save`.
        asynchronous: `save` returns once the state is copied, and a thread writes it. With several processes each rank does
            so with its own part.
        busy: what an asynchronous save does while another one is running: `"wait"` for it, or `"replace"` the waiting one.
        durable: flush to the disk before a checkpoint gets its name. Without it, a power failure can damage the newest.
        random: save and restore the state of the random generators of Python, NumPy and torch.
        on_sigterm: on SIGTERM, finish the running save before the process ends.
        timeout: how long a rank waits for the others in a save: longer than the slowest takes to write, and `after_save`.
            A process that has ended is noticed at once; one that hangs, after this time.
        limits: resource limits for reading a checkpoint, if the defaults are too low.

    A manager may be used from several threads: its methods run one at a time. A newer manager of the same process takes the
    directory over from an older one, unless that is in its `with` block. If standard error is a terminal, long saves and
    resumes show a progress bar, as does waiting for an asynchronous save.

    Raises LockedError at the first save if another process saves in the directory. RunGoneError, RunDeniedError and
    DiskFullError say what to do; no checkpoint is lost, and the next save works once it is done. AfterSaveError: the
    checkpoint was saved, but flushing its directory entry or deleting older ones failed.

    >>> import tempfile, statedict
    >>> with CheckpointManager(tempfile.mkdtemp(), keep=last(2)) as manager:
    ...     for step in (1, 2, 3):
    ...         _ = manager.save(step, metrics={"loss": 1 / step}, epoch=step)
    ...     manager.resume().values, [saved.step for saved in manager.checkpoints]
    ({'epoch': 3}, [2, 3])
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: Keep | int | None = None,
        when: When | None = None,
        after_save: Callable[[Saved], object] | None = None,
        asynchronous: bool = False,
        busy: Busy = "wait",
        durable: bool = True,
        random: bool = True,
        on_sigterm: bool = False,
        timeout: timedelta = timedelta(minutes=30),
        limits: Limits | None = None,
    ) -> None:
        self._run = open_run(directory)
        self.directory = self._run.at
        self._keep = last(3) if keep is None else _keep.policy(keep)
        self._after_save = AfterSave(after_save)
        self._asynchronous, self._busy, self._durable, self._random = asynchronous, busy, durable, random
        self._limits = limits
        self._background = Background()
        self._ownership = Ownership(self._run, self._background)
        self._memory: list[CopyMemory] = []
        self._timeout = timeout
        self._group: RankConnections | None = None
        self._numbers = count()
        self._meter = Meter("")
        when = None if when is None else _when.checked(when)
        saves_first = _when.saves_on_preemption(when)
        self._on_sigterm = OnSigterm(self.close, saves_first=saves_first) if on_sigterm or saves_first else None
        self._schedule = Schedule(when, self._on_sigterm)
        # Runs when the manager is garbage-collected or the interpreter exits, so it must not refer to the manager itself.
        weakref.finalize(self, _finish, self._background, self._ownership)
        MANAGERS.add(self)

    # checkpoints

    @property
    def checkpoints(self) -> list[Saved]:
        """The run's checkpoints, oldest first. Raises OSError if one cannot be read at the moment."""
        return retried(self._run.saved)

    @property
    def latest(self) -> Saved | None:
        """The newest checkpoint; None for an empty run."""
        found = self.checkpoints
        return found[-1] if found else None

    def best(self, metric: str, mode: str = "min") -> Saved | None:
        """The checkpoint with the lowest (`mode="max"`: highest) value of `metric`; None if no checkpoint has it."""
        found = self.checkpoints
        (step,) = _select.best(found, metric, 1, mode) or (None,)
        return next((saved for saved in found if saved.step == step), None)

    def __getitem__(self, at: int | RunPolicy) -> Saved:
        """The checkpoint of a step, or `manager[best("loss")]`; raises UnknownNameError (a KeyError) if there is none."""
        return one_of(self.checkpoints, at)

    def __iter__(self) -> Iterator[int]:
        """The steps of the checkpoints, oldest first; so `step in manager` says whether a step has one."""
        return iter([saved.step for saved in self.checkpoints])

    # saving

    def should_save(self, step: int) -> bool:
        """Whether to save at this step, according to the manager's `when`.

        >>> import tempfile
        >>> from statedict import any_of, every, on_preemption
        >>> with CheckpointManager(tempfile.mkdtemp(), when=any_of(every(2), every(minutes=30), on_preemption)) as manager:
        ...     [step for step in range(1, 7) if manager.should_save(step)]
        [2, 4, 6]

        With several processes, all ranks must ask, and get the same answer: it depends on the clock and the functions of
        rank 0, and on SIGTERM at any rank. Unless `when` consists of steps, each call is one small collective.

        With `on_preemption`, SIGTERM does not end the process at once: `should_save` says yes, and the process (all ranks)
        ends after the next save that does not fail. If there is none, it ends when the manager is closed.
        """
        return self._schedule.is_due(_objects.checked_step(step))

    def save(self, /, step: int, metrics: Mapping[str, Any] | None = None, **objects: Any) -> None:
        """Save a checkpoint of all arguments: an object with a state by its state, any other value as it is.

        Objects with a state have `state_dict` and `load_state_dict`, or are random generators of torch, NumPy or Python.

        Objects may be in lists, tuples and mappings: `optimizers=[one, other]` is saved as the objects `optimizers/0` and
        `optimizers/1`, and resumed into such a list. Other values in it are returned in `values`, with None in place of the
        objects. `metrics` are numbers (an array or tensor of one element counts as one) or other values that JSON preserves;
        anything else raises TypeError.

        Also raises the error of an earlier asynchronous save. Older checkpoints are deleted only after this one is durable.

        With several processes, all ranks must make the same saves. If one fails on any rank, all raise: RankError names the
        rank. Of an asynchronous one all are told at the next call, and with `busy="replace"` that call's save is made, too.

        Then `after_save` is called, in the thread that wrote the checkpoint: this one, or the background thread of an
        asynchronous save, whose successor waits for it. With several processes rank 0 calls it, and the others wait. If it
        raises, the checkpoint stays, and AfterSaveError is raised from its error. It may use the manager, but not save (and
        not resume, if there are several ranks).
        """
        step = _objects.checked_step(step)
        if self._after_save.is_running_here:
            raise SaveError("after_save= must not save with the same manager: the save that called it has not ended")
        with self._on_sigterm.delayed() if self._on_sigterm else nullcontext(), self._ownership.mutex:
            given, metrics = _objects.sort(objects), _objects.numbers(metrics or {})
            save = self._save_together if _distributed.is_needed(given.stateful.values()) else self._save_alone
            try:
                save(step, metrics, given)
            except AfterSaveError:
                self._schedule.restart()
                raise
            self._schedule.saved()

    def pin(self, at: int | Saved | RunPolicy) -> None:
        """Never delete this checkpoint: a step, a Saved, or `best(…)`. Partner of `unpin`.

        The pin is kept in the run's directory. It is of the step: a later save of the same step replaces the content, and is
        pinned too. Another process may be saving in the directory.

        >>> import tempfile, statedict
        >>> with CheckpointManager(tempfile.mkdtemp(), keep=last(1)) as manager:
        ...     for step in (1, 2, 3):
        ...         manager.save(step)
        ...         if step == 1:
        ...             manager.pin(step)
        ...     [(saved.step, saved.pinned) for saved in manager.checkpoints]
        [(1, True), (3, False)]
        """
        with self._turn():
            self.wait()
            self._on_first(lambda: self._run.pin(self[_step(at)].step))

    def unpin(self, at: int | Saved | RunPolicy) -> None:
        """Let retention policies decide about a checkpoint again. Partner of `pin`."""
        with self._turn():
            self.wait()
            step = _step(at)
            self._on_first(lambda: self._run.unpin(step if isinstance(step, int) else self[step].step))

    @property
    def rules(self) -> Keep | None:
        """The policy that the newest checkpoint was saved with; None if it was a function of the caller's.

        >>> import tempfile
        >>> directory = tempfile.mkdtemp()
        >>> with CheckpointManager(directory, keep=last(2)) as manager:
        ...     manager.save(1, epoch=1)
        >>> CheckpointManager(directory).rules
        last(2)
        """
        latest = self.latest
        written = None if latest is None else self._run.manifest(latest.path).keep
        try:
            return None if written is None else _keep.parse(written)
        except ValueError as error:
            raise FormatError(f"the manifest has an unknown policy: {error}", file=self._run.name) from error

    def prune(self, keep: Keep | int | None = None, *, dry_run: bool = False) -> list[Saved]:
        """Delete the checkpoints that the policy (default: the manager's) does not keep; return them, oldest first.

        With `dry_run` nothing is deleted. The newest checkpoint and pinned ones are always kept.
        """
        chosen = self._keep if keep is None else _keep.policy(keep)
        with self._turn():
            self.wait()
            return self._on_first(lambda: expired(self.checkpoints, chosen) if dry_run else self._prune(chosen))

    def wait(self) -> None:
        """Wait until all saves are durable and `after_save` has returned; raise the error of a failed one."""
        with self._turn():
            if self._after_save.is_running_here:
                return
            if self._background.running:
                with self._meter.shown():
                    self._background.settle()
            self._background.raise_error()

    def close(self) -> None:
        """Wait for the running save, and unlock the directory."""
        with self._ownership.mutex:
            try:
                self.wait()
            finally:
                self._ownership.release()
                group, self._group = self._group, None
                if group is not None:
                    group.close()
                if self._on_sigterm:
                    self._on_sigterm.forget()

    # resuming

    def resume(
        self,
        run: str | os.PathLike[str] | None = None,
        /,
        *,
        at: int | Saved | RunPolicy | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Limits | None = None,
        **objects: Any,
    ) -> Resumed | None:
        """Load the newest valid checkpoint into the objects; return None if the run has no checkpoint yet.

        `at` selects another checkpoint: a step, a Saved, or `best("loss")`. It must exist and be valid.

        `run` is the directory of another run to resume from, which is only read: `resume("runs/a", at=best("loss"))`. It
        must have a checkpoint. A Saved may be of another run, too.

        All or nothing: every load is checked before the first object changes. `options` are arguments of `load_state_dict`
        by object name (`options={"model": {"exclude": "head"}, "optimizers/0": {"strict": False}}`). `limits` replaces the
        manager's for this call. Random state is restored unless the manager was created with `random=False`.

        Raises UnknownNameError if the checkpoint does not contain an object or the run has no such step or metric, LoadError
        if an object does not fit, OSError if the newest checkpoint cannot be read at the moment: only a checkpoint that was
        read and found damaged is skipped.
        """
        wanted = _objects.flat(objects)
        asked = choice(self._run, run, at)
        if self._after_save.is_running_here and self._is_one_of_many:
            raise LoadError(
                "resume() needs all ranks, and after_save= is called on rank 0; load the files with load_state_dict instead"
            )
        with self._turn():
            self.wait()
            # The files of a store are verified while they are loaded, so that each byte is fetched once.
            once = isinstance((asked.run or self._run).at, str) and not self._is_one_of_many
            while True:
                found = self._on_first(partial(asked.find, self._run, self._ownership, deep=not once))
                if found.path is None or found.manifest is None:
                    found.refuse_damaged((asked.run or self._run).name)
                    return None
                if once and not have_room(found.manifest.nbytes):
                    once = False
                    continue
                read = FoundCheckpoint(found.path, found.manifest, limits or self._limits, is_verified=not once)
                is_replaced = partial(_find.is_replaced, asked.run or self._run, found.path, found.manifest)
                try:
                    resumed = read.into(wanted, options or {}, tuple(found.passed_over), random=self._random)
                except (StateDictError, OSError) as error:
                    if self._is_one_of_many or not retried(is_replaced):
                        if not once or not isinstance(error, (FormatError, FileNotFoundError)):
                            raise
                        # Most probably damaged: look for one whose files have been verified.
                        once = False
                else:
                    if not self._on_first(partial(_surely, is_replaced)):
                        return resumed
                # The training process has deleted this checkpoint meanwhile, or saved its step again: read what is there.

    def __enter__(self) -> Self:
        self._ownership.in_use = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ownership.in_use = False
        self.close()

    # implementation

    @property
    def _is_one_of_many(self) -> bool:
        return _distributed.ranks()[1] > 1

    def _turn(self) -> AbstractContextManager[object]:
        """Wait for the turn of this thread. `after_save` has that of its save, which another thread may be waiting for."""
        return nullcontext() if self._after_save.is_running_here else self._ownership.mutex

    def _on_first(self, act: Callable[[], T]) -> T:
        # Only rank 0 is inside `after_save`, so it must not talk to the others there.
        alone = not self._is_one_of_many or self._after_save.is_running_here
        return act() if alone else _distributed.on_first(act)

    def _save_alone(self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments) -> None:
        if self._busy == "wait":
            self._background.wait()
        self._ownership.hold(seize=True)
        if not self._asynchronous:
            content = self._content(step, metrics, given)
            meter = _meter(content)
            with meter.shown():
                self._write(content, meter)
            return
        self._background.raise_error()
        content, kept = copied(self._content(step, metrics, given, copied=True), self._spare())
        # The progress bar is shown only by `wait`.
        meter = self._meter = _meter(content)
        self._submit(step, lambda: self._write(content, meter), kept)

    def _save_together(self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments) -> None:
        """Save with all ranks. What fails on this one is told to the others, in the background too, so that all go on alike.

        So every rank makes the same saves, and if an asynchronous one fails, all raise at the same call.
        """
        if self._busy == "wait":
            self._background.wait()
        save, memory = self._save_of_ranks(), self._spare() if self._asynchronous else CopyMemory()
        meter = Meter("")
        try:
            content = self._content_of_rank(step, metrics, given)
            if self._asynchronous:
                content, memory = copied_of_rank(content, memory)
            meter = _meter(content.own)
        except BaseException as error:  # noqa: BLE001  # raised by the job
            job = partial(save.fail, error)
        else:
            job = partial(self._write_together, save, content, meter)
        if not self._asynchronous:
            with meter.shown():
                job()
            return
        self._meter = meter
        self._submit(step, job, memory)
        if self._busy == "replace":
            # After it has been submitted: another rank may not know of the error yet, and goes on with this save.
            self._background.raise_error()

    def _save_of_ranks(self) -> SaveOfRanks:
        from statedict.torch import RankConnections

        if self._group is None or not self._group.is_current:
            self._group = RankConnections(self._timeout)
        return SaveOfRanks(
            self._run, self._group, next(self._numbers), durable=self._durable,
            hold=partial(self._ownership.hold, seize=True), follow_up=self._follow_up,
        )  # fmt: skip

    def _content_of_rank(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments
    ) -> _together.RankContent:
        parts, rest = _distributed.split(given)
        states = _objects.states(rest, random=False)
        _distributed.refuse_shards(states)
        own = _save.Content(
            step, metrics, given.plain, states if _distributed.ranks()[0] == 0 else {}, _keep.dump(self._keep)
        )
        return _together.RankContent(own, _distributed.parts_of(parts), _random.read() if self._random else None)

    def _write_together(self, save: SaveOfRanks, content: _together.RankContent, meter: Meter) -> None:
        if not save.write(content, meter) and self._busy == "wait":
            raise SaveError(
                f"{self._run.name}: other ranks have made a later save than step {content.own.step}: every rank must make "
                "the same saves"
            )

    def _spare(self) -> CopyMemory:
        """The memory of an earlier copy."""
        return self._memory.pop() if self._memory else CopyMemory()

    def _submit(self, step: int, job: Callable[[], None], memory: CopyMemory) -> None:
        self._background.submit(
            lambda: self._run_and_return(step, job, memory), dropped=lambda: self._memory.append(memory)
        )

    def _content(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, *, copied: bool = False
    ) -> _save.Content:
        """What this save writes. `copied`: the caller copies it at once, so it may contain the live parameters."""
        states = _objects.states(given, random=self._random, copied=copied)
        frozen = {name: frozen_names(value, states[name]) for name, value in given.stateful.items()}
        return _save.Content(step, metrics, given.plain, states, _keep.dump(self._keep), frozen)

    def _write(self, content: _save.Content, meter: Meter) -> None:
        with self._run.translated():
            # Retry the deletions that failed in an earlier save.
            self._run.tidy()
            _save.write(self._run, content, meter, durable=self._durable)
        self._follow_up(content.step)

    def _follow_up(self, step: int) -> None:
        """Delete the checkpoints that the policy does not keep, and call `after_save`, after a save."""
        try:
            with self._run.after_save(step, "deleting older checkpoints"):
                self._remove_expired(self._keep, saved=step)
        finally:
            self._after_save(self._run.name, step, lambda: self[step])

    def _prune(self, keep: Keep) -> list[Saved]:
        self._ownership.hold()
        return self._remove_expired(keep)

    def _remove_expired(self, keep: Keep, *, saved: int | None = None) -> list[Saved]:
        """Delete the checkpoints that a policy does not keep, except the step `saved` (a rerun can be behind the newest)."""
        gone = [each for each in expired(self.checkpoints, keep) if each.step != saved]
        return [each for each in gone if self._run.remove(each.path)]

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

    def _forget(self) -> None:
        """Reset the copy in a forked child: the lock, the mutex and the thread belong to the parent."""
        self._ownership.forget()
        self._background.forget()
        self._memory = []
        self._group = None
        if self._on_sigterm:
            self._on_sigterm.reset()


def _finish(background: Background, ownership: Ownership) -> None:
    with ownership.mutex:
        try:
            background.wait()
        finally:
            ownership.release()


def _surely(is_true: Callable[[], bool]) -> bool:
    """Whether something is true; False if that cannot be found out at the moment."""
    try:
        return retried(is_true)
    except (OSError, MemoryError):
        return False


def _step(at: int | Saved | RunPolicy) -> int | RunPolicy:
    if isinstance(at, RunPolicy):
        return at
    return _objects.checked_step(at.step if isinstance(at, Saved) else at)


def _meter(content: _save.Content) -> Meter:
    # Computing the size visits every tensor, so it is done only if a bar can be shown.
    return Meter(f"saving step {content.step}", _save.nbytes(content) if watched() else 0)


def _after_fork() -> None:
    for manager in list(MANAGERS):
        manager._forget()


# Otherwise a child that outlives its parent (a data loader worker) would hold the parent's lock by the inherited descriptor.
MANAGERS: weakref.WeakSet[CheckpointManager] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
