"""CheckpointManager: save a training run's checkpoints and resume from them."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from statedict import files
from statedict.errors import AfterSaveError, FormatError, SaveError
from statedict.formats import runs

from . import _distributed, _keep, _objects
from ._keep import Keep, Saved, expired, last, ranked
from ._progress import Meter, watched
from .resuming import _find
from .resuming._find import Resumed
from .resuming._restore import VerifiedCheckpoint
from .resuming._retry import retried
from .run_directory import _changes
from .run_directory._catalogue import Catalogue
from .saving import _save
from .saving._background import Background, Busy
from .saving._background_copy import Memory, copied
from .saving._frozen import frozen_names
from .saving._ownership import Ownership
from .saving._sigterm import OnSigterm

if TYPE_CHECKING:
    from statedict.formats import Limits


class CheckpointManager:
    """Save a run's checkpoints in a directory, and resume from them.

    Args:
        directory: the run's directory; the first save creates it. Only one manager at a time can save in it.
        keep: which checkpoints to keep (`last`, `every`, `best`, `any_of`; 3 means `last(3)`). The newest is always kept,
            and a checkpoint is deleted only after a newer one is durable.
        asynchronous: `save` returns once the state is copied, and a thread writes it. With several processes `save` still
            waits for the write, because the ranks must agree that the checkpoint is complete.
        busy: what an asynchronous save does while another one is running: `"wait"` for it, or `"replace"` the waiting one.
        durable: flush to the disk before a checkpoint gets its name. Without it, a power failure can damage the newest.
        random: save and restore the state of the random generators of Python, NumPy and torch.
        on_sigterm: on SIGTERM, finish the running save before the process ends.
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
        asynchronous: bool = False,
        busy: Busy = "wait",
        durable: bool = True,
        random: bool = True,
        on_sigterm: bool = False,
        limits: Limits | None = None,
    ) -> None:
        if files.is_url(directory):
            raise SaveError(
                f"{files.redacted(str(directory))}: CheckpointManager needs a local directory, not a URL; "
                "save the run locally and upload it from there"
            )
        # Absolute, so that a later change of the working directory does not matter.
        self.directory = Path(os.path.abspath(directory))
        self._keep = last(3) if keep is None else _keep.policy(keep)
        self._asynchronous, self._busy, self._durable, self._random = asynchronous, busy, durable, random
        self._limits = limits
        self._background = Background()
        self._ownership = Ownership(self.directory, self._background)
        self._catalogue = Catalogue(self.directory)
        self._memory: list[Memory] = []
        self._meter = Meter("")
        self._on_sigterm = OnSigterm(self.close) if on_sigterm else None
        # Runs when the manager is garbage-collected or the interpreter exits, so it must not refer to the manager itself.
        weakref.finalize(self, _finish, self._background, self._ownership)
        MANAGERS.add(self)

    # checkpoints

    @property
    def checkpoints(self) -> list[Saved]:
        """The run's checkpoints, oldest first. Raises OSError if one cannot be read at the moment."""
        return retried(self._catalogue.saved)

    @property
    def latest(self) -> Saved | None:
        """The newest checkpoint; None for an empty run."""
        found = self.checkpoints
        return found[-1] if found else None

    def best(self, metric: str, mode: str = "min") -> Saved | None:
        """The checkpoint with the lowest (`mode="max"`: highest) value of `metric`; None if no checkpoint has it."""
        found = ranked(self.checkpoints, metric)
        sign = {"min": 1, "max": -1}[mode]
        return min(found, key=lambda saved: (sign * saved.metrics[metric], -saved.step), default=None)

    # saving

    def save(self, step: int, metrics: Mapping[str, Any] | None = None, **objects: Any) -> None:
        """Save a checkpoint of all arguments: an object with a state by its state, any other value as it is.

        Objects may be in lists, tuples and mappings: `optimizers=[one, other]` is saved as the objects `optimizers/0` and
        `optimizers/1`, and resumed into such a list. Other values in it are returned in `values`, with None in place of the
        objects. `metrics` are numbers (an array or tensor of one element counts as one) or other values that JSON preserves;
        anything else raises TypeError.

        Also raises the error of an earlier asynchronous save. Older checkpoints are deleted only after this one is durable.
        """
        step = _objects.checked_step(step)
        with self._on_sigterm.delayed() if self._on_sigterm else nullcontext(), self._ownership.mutex:
            given, metrics = _objects.sort(objects), _objects.numbers(metrics or {})
            if _distributed.is_needed(given.stateful.values()):
                self._save_together(step, metrics, given)
            else:
                self._save_alone(step, metrics, given)

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
        written = None if latest is None else runs.read(latest.path).keep
        try:
            return None if written is None else _keep.parse(written)
        except ValueError as error:
            raise FormatError(f"the manifest has an unknown policy: {error}", file=str(self.directory)) from error

    def prune(self, keep: Keep | int | None = None, *, dry_run: bool = False) -> list[Saved]:
        """Delete the checkpoints that the policy (default: the manager's) does not keep; return them, oldest first.

        With `dry_run` nothing is deleted. The newest checkpoint is always kept.
        """
        chosen = self._keep if keep is None else _keep.policy(keep)
        with self._ownership.mutex:
            self.wait()
            if dry_run:
                return expired(self.checkpoints, chosen)
            self._ownership.hold()
            return self._remove_expired(chosen)

    def wait(self) -> None:
        """Wait until all saves are durable; raise the error of a failed one."""
        with self._ownership.mutex:
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
                if self._on_sigterm:
                    self._on_sigterm.forget()

    # resuming

    def resume(
        self,
        *,
        at: int | Saved | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Limits | None = None,
        **objects: Any,
    ) -> Resumed | None:
        """Load the newest valid checkpoint into the objects; return None if the run has no checkpoint yet.

        `at` selects another checkpoint: its step, or what `best` returned. It must exist and be valid.

        All or nothing: every load is checked before the first object changes. `options` are arguments of `load_state_dict`
        by object name (`options={"model": {"exclude": "head"}, "optimizers/0": {"strict": False}}`). `limits` replaces the
        manager's for this call. Random state is restored unless the manager was created with `random=False`.

        Raises UnknownNameError if the checkpoint does not contain an object or the run has no such step, LoadError if an
        object does not fit, OSError if the newest checkpoint cannot be read at the moment: only a checkpoint that was read
        and found damaged is skipped.
        """
        wanted = _objects.flat(objects)
        find = self._find if at is None else partial(_find.find_step, self.directory, _step(at))
        with self._ownership.mutex:
            self.wait()
            while True:
                found = _distributed.on_first(find) if self._is_one_of_many else find()
                if found.path is None or found.manifest is None:
                    found.refuse_damaged(self.directory)
                    return None
                try:
                    read = VerifiedCheckpoint(found.path, found.manifest, limits or self._limits)
                    return read.into(wanted, options or {}, tuple(found.passed_over), random=self._random)
                except FileNotFoundError:
                    # The training process has deleted this checkpoint meanwhile, so there is a newer one.
                    if found.path.is_dir() or self._is_one_of_many:
                        raise

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

    def _find(self) -> _find.Found:
        return _find.find(self.directory, self._ownership)

    def _save_alone(self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments) -> None:
        if self._busy == "wait":
            self._background.wait()
        self._ownership.hold()
        if not self._asynchronous:
            content = self._content(step, metrics, given)
            meter = _meter(content)
            with meter.shown():
                self._write(content, meter)
            return
        self._background.raise_error()
        memory = self._memory.pop() if self._memory else {}
        content, kept = copied(self._content(step, metrics, given, copied=True), memory)
        # The progress bar is shown only by `wait`.
        meter = self._meter = _meter(content)
        self._background.submit(
            lambda: self._write_and_return(content, meter, kept), dropped=lambda: self._memory.append(kept)
        )

    def _content(
        self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments, *, copied: bool = False
    ) -> _save.Content:
        """What this save writes. `copied`: the caller copies it at once, so it may contain the live parameters."""
        states = _objects.states(given, random=self._random, copied=copied)
        frozen = {name: frozen_names(value, states[name]) for name, value in given.stateful.items()}
        return _save.Content(step, metrics, given.plain, states, _keep.dump(self._keep), frozen)

    def _write(self, content: _save.Content, meter: Meter) -> None:
        with _changes.translated(self.directory):
            # Retry the deletions that failed in an earlier save.
            _changes.tidy(self.directory)
            _save.write(self.directory, content, meter, durable=self._durable)
        self._prune_after(content.step)

    def _save_together(self, step: int, metrics: Mapping[str, Any], given: _objects.SortedArguments) -> None:
        """Save with all ranks, synchronously. Rank 0 locks the directory, writes what is not sharded, and prunes."""
        _distributed.on_first(self._ownership.hold)
        parts, rest = _distributed.split(given)
        states = _objects.states(rest, random=False)
        content = _save.Content(step, metrics, given.plain, states, _keep.dump(self._keep))
        _distributed.save(self.directory, content, parts, random=self._random, durable=self._durable)
        _distributed.on_first(lambda: self._prune_after(step))

    def _prune_after(self, step: int) -> None:
        """Delete the checkpoints that the policy does not keep, after a save."""
        with _changes.after_save(self.directory, step, "deleting older checkpoints"):
            self._remove_expired(self._keep, saved=step)

    def _remove_expired(self, keep: Keep, *, saved: int | None = None) -> list[Saved]:
        """Delete the checkpoints that a policy does not keep, except the step `saved` (a rerun can be behind the newest)."""
        gone = [each for each in expired(self.checkpoints, keep) if each.step != saved]
        for each in gone:
            _changes.remove(self.directory, each.path)
        return gone

    def _write_and_return(self, content: _save.Content, meter: Meter, memory: Memory) -> None:
        try:
            self._write(content, meter)
        except AfterSaveError:
            raise
        except BaseException as error:
            error.add_note(f"{self.directory}: step {content.step} was not saved")
            raise
        finally:
            self._memory.append(memory)

    def _forget(self) -> None:
        """Reset the copy in a forked child: the lock, the mutex and the thread belong to the parent."""
        self._ownership.forget()
        self._background.forget()
        self._memory = []
        if self._on_sigterm:
            self._on_sigterm.reset()


def _finish(background: Background, ownership: Ownership) -> None:
    with ownership.mutex:
        try:
            background.wait()
        finally:
            ownership.release()


def _step(at: Any) -> int:
    return at.step if isinstance(at, Saved) else _objects.checked_step(at)


def _meter(content: _save.Content) -> Meter:
    # Computing the size visits every tensor, so it is done only if a bar can be shown.
    return Meter(f"saving step {content.step}", _save.nbytes(content) if watched() else 0)


def _after_fork() -> None:
    for manager in list(MANAGERS):
        manager._forget()


# Otherwise a child that outlives its parent (a data loader worker) would hold the parent's lock by the inherited descriptor.
MANAGERS: weakref.WeakSet[CheckpointManager] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
