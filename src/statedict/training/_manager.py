"""CheckpointManager: save a training run's checkpoints and resume from them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from statedict.errors import AfterSaveError, FormatError, LoadError, SaveError
from statedict.files import system

from . import _distributed, _keep, _objects, _when
from ._keep import Keep, RunPolicy, Saved, SavedCheckpoints, expired, last
from ._ranks import ranks
from ._run import open_run
from ._when import When
from .resuming._choose import choice, one_of
from .resuming._find import Resumed
from .resuming._resume import Resuming
from .resuming._retry import retried
from .saving._after_save import AfterSave
from .saving._background import Background, Busy
from .saving._finish import finish
from .saving._ownership import Ownership
from .saving._saver import SaveOptions, Saver
from .saving._schedule import Schedule
from .saving._sigterm import OnSigterm

if TYPE_CHECKING:
    from statedict.formats import Limits

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
            A process that has ended is detected within seconds; one that hangs, or ends in the first save, after this
            time, and rank 0 after three times as long.
        limits: resource limits for reading a checkpoint, if the defaults are too low.

    A manager may be used from several threads: its methods run one at a time. A newer manager of the same process takes
    over the directory from an older one, unless that one is in its `with` block. If standard error is a terminal, long
    saves and resumes show a progress bar, as does waiting for an asynchronous save.

    Close the manager at the end of the run (`with`, or `close`), which raises the error of a failed asynchronous save.
    Without that, the error is printed when the interpreter exits, and the exit status is 120.

    Raises LockedError at the first save if another process saves in the directory. RunGoneError, RunDeniedError and
    DiskFullError say what to do; no checkpoint is lost, and the next save works once that is done. AfterSaveError: the
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
        self._random, self._limits = random, limits
        self._background = Background()
        self._ownership = Ownership(self._run, self._background)
        saving = SaveOptions(self._keep, asynchronous, busy, durable, random, timeout)
        self._saver = Saver(self._run, saving, self._background, self._ownership)
        when = None if when is None else _when.checked(when)
        saves_first = _when.saves_on_preemption(when)
        self._on_sigterm = OnSigterm(self.close, saves_first=saves_first) if on_sigterm or saves_first else None
        self._schedule = Schedule(when, self._on_sigterm)
        # Runs when the manager is garbage-collected or the interpreter exits, so it must not refer to the manager itself.
        weakref.finalize(self, finish, self._background, self._ownership)
        MANAGERS.add(self)

    # checkpoints

    @property
    def checkpoints(self) -> SavedCheckpoints:
        """The run's checkpoints, oldest first: a list. Raises OSError if one cannot be read at the moment."""
        return SavedCheckpoints(retried(self._run.saved))

    @property
    def latest(self) -> Saved | None:
        """The newest checkpoint, which is that of the highest step; None for an empty run."""
        found = self.checkpoints
        return found[-1] if found else None

    def best(self, metric: str, mode: Literal["min", "max"] = "min") -> Saved | None:
        """The checkpoint with the lowest (`mode="max"`: highest) value of `metric`; None if no checkpoint has it."""
        found = self.checkpoints
        (step,) = _keep.best(metric, 1, mode)(found) or (None,)
        return next((saved for saved in found if saved.step == step), None)

    def __getitem__(self, at: int | RunPolicy) -> Saved:
        """The checkpoint of a step, or `manager[best("loss")]`; raises UnknownNameError (a KeyError) if there is none."""
        return one_of(self.checkpoints, at, self._run.name)

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
        rank. For an asynchronous save, all ranks raise at the next call; with `busy="replace"`, that call's save is
        made nevertheless.

        Then `after_save` is called, in the thread that wrote the checkpoint: this one, or the background thread of an
        asynchronous save. The next save waits for it. With several processes rank 0 calls it, and the others wait. If it
        raises, the checkpoint stays, and AfterSaveError is raised from its error. It may use the manager, but not save (and
        not resume, if there are several ranks).
        """
        step = _objects.checked_step(step)
        if self._after_save.is_running_here:
            raise SaveError("after_save= must not save with the same manager: the save that called it has not ended")
        with self._on_sigterm.delayed() if self._on_sigterm else nullcontext(), self._ownership.mutex:
            given, metrics = _objects.sort(objects), _objects.numbers(metrics or {})
            try:
                self._saver.save(step, metrics, given, self._follow_up)
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
            if not self._after_save.is_running_here:
                self._saver.wait()

    def close(self) -> None:
        """Wait for the running save, and unlock the directory."""
        with self._ownership.mutex:
            try:
                self.wait()
            finally:
                self._ownership.release()
                self._saver.close()
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

        The newest is that of the highest step, whenever it was saved.

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
            resuming = Resuming(self._run, self._ownership, asked, self._on_first, is_alone=not self._is_one_of_many)
            return resuming.load(wanted, options or {}, limits or self._limits, random=self._random)

    def __enter__(self) -> Self:
        self._ownership.in_use = True
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._ownership.in_use = False
        self.close()

    # implementation

    @property
    def _is_one_of_many(self) -> bool:
        return ranks()[1] > 1

    def _turn(self) -> AbstractContextManager[object]:
        """Wait for the turn of this thread. `after_save` has that of its save, which another thread may be waiting for."""
        return nullcontext() if self._after_save.is_running_here else self._ownership.mutex

    def _on_first(self, act: Callable[[], T]) -> T:
        # Only rank 0 is inside `after_save`, so it must not talk to the others there.
        alone = not self._is_one_of_many or self._after_save.is_running_here
        return act() if alone else _distributed.on_first(act)

    def _follow_up(self, step: int) -> None:
        """Delete the checkpoints that the policy does not keep, and call `after_save`, after a save."""
        try:
            with self._run.after_save(step, "deleting older checkpoints"):
                self._remove_expired(self._keep, saved=step)
        finally:
            self._after_save(self._run.name, step, lambda: self[step])

    def _prune(self, keep: Keep) -> list[Saved]:
        if not self._run.removes_unlocked:
            self._ownership.hold()
        return self._remove_expired(keep)

    def _remove_expired(self, keep: Keep, *, saved: int | None = None) -> list[Saved]:
        """Delete the checkpoints that a policy does not keep, except the step `saved` (a rerun can be behind the newest)."""
        gone = [each for each in expired(self.checkpoints, keep) if each.step != saved]
        return [each for each in gone if self._run.remove(each.path)]

    def _forget(self) -> None:
        """Reset the copy in a forked child: the lock, the mutex and the thread belong to the parent."""
        self._ownership.forget()
        self._background.forget()
        self._saver.forget()
        if self._on_sigterm:
            self._on_sigterm.reset()


def _step(at: int | Saved | RunPolicy) -> int | RunPolicy:
    if isinstance(at, RunPolicy):
        return at
    return _objects.checked_step(at.step if isinstance(at, Saved) else at)


def _after_fork() -> None:
    for manager in list(MANAGERS):
        manager._forget()


# Otherwise a child that outlives its parent (a data loader worker) would hold the parent's lock by the inherited descriptor.
MANAGERS: weakref.WeakSet[CheckpointManager] = weakref.WeakSet()
system.after_fork(_after_fork)
