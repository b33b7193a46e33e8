"""CheckpointManager: one object in place of the twenty lines that everyone writes."""

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
from statedict.errors import AfterSaveError, SaveError

from . import _directory, _distributed, _keep, _manifest, _objects, _resume, _save
from ._background import Background, Busy
from ._catalogue import Catalogue
from ._claim import Claim
from ._copied import Memory, copied
from ._keep import Keep, Saved, expired, last, ranked
from ._patience import patiently
from ._progress import Meter, watched
from ._restore import Reading
from ._resume import Resumed
from ._shared import frozen_names
from ._sigterm import OnSigterm

if TYPE_CHECKING:
    from statedict.formats import Limits


class CheckpointManager:
    """Saves a run's checkpoints in a directory, and resumes from them.

    Args:
        directory: where they lie; made by the first save if it is not there. One manager at a time may save in it.
        keep: which checkpoints to keep (`last`, `every`, `best`, `any_of`; 3 is `last(3)`): the newest is kept whatever it
            says, and none is deleted before its successor is durable.
        asynchronous: `save` returns once the state is copied, and a thread writes it. Where several processes train, a save
            is waited for all the same: they have to agree that it is whole.
        busy: what an asynchronous save does when one is in flight: `"wait"` for it, or `"replace"` the one that waits.
        durable: flush to the disk before a checkpoint gets its name; without it a power cut may damage the newest.
        random: save and restore the state of Python's, NumPy's and torch's generators.
        on_sigterm: finish the write in hand when SIGTERM comes, and then end as the signal would have.
        limits: what reading a checkpoint may cost, where the usual limits are too narrow.

    A manager may be used from several threads: one after the other saves, prunes and resumes. In one process a manager takes
    the directory over from an older one that is not in its `with` block. Where standard error is a terminal, long saves and
    resumes show a bar there; an asynchronous save while it is waited for.

    Raises LockedError at the first save where somebody else saves in the directory; RunGoneError, RunDeniedError and
    DiskFullError say what to do, lose nothing, and the next save works once it is done. AfterSaveError: the checkpoint was
    saved, but flushing its name or deleting older ones failed.

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
                f"{files.redacted(str(directory))}: a run is kept in a local directory, and copied from there"
            )
        # A training that changes its working directory goes on saving here.
        self.directory = Path(os.path.abspath(directory))
        self._keep = last(3) if keep is None else _keep.policy(keep)
        self._asynchronous, self._busy, self._durable, self._random = asynchronous, busy, durable, random
        self._limits = limits
        self._background = Background()
        self._claim = Claim(self.directory, self._background)
        self._catalogue = Catalogue(self.directory)
        self._memory: list[Memory] = []
        self._meter = Meter("")
        self._on_sigterm = OnSigterm(self.close) if on_sigterm else None
        # When nobody has the manager any more, or the interpreter ends. It must not be kept alive by that.
        weakref.finalize(self, _finish, self._background, self._claim)
        MANAGERS.add(self)

    # what is there

    @property
    def checkpoints(self) -> list[Saved]:
        """The run's checkpoints, oldest first. Raises OSError where one cannot be read now."""
        return patiently(self._catalogue.saved)

    @property
    def latest(self) -> Saved | None:
        """The newest checkpoint, or None on a first run."""
        found = self.checkpoints
        return found[-1] if found else None

    def best(self, metric: str, mode: str = "min") -> Saved | None:
        """The checkpoint with the lowest (`mode="max"`: highest) value of `metric`; None where none has it."""
        found = ranked(self.checkpoints, metric)
        sign = {"min": 1, "max": -1}[mode]
        return min(found, key=lambda saved: (sign * saved.metrics[metric], -saved.step), default=None)

    # saving

    def save(self, step: int, metrics: Mapping[str, Any] | None = None, **objects: Any) -> None:
        """Save a checkpoint of everything given: objects with a state by their state, anything else by value.

        Objects may lie in lists, tuples and mappings: `optimizers=[one, other]` is saved as the objects `optimizers/0` and
        `optimizers/1`, and resumed into such a list; what else lies there comes back in `values`, with None in their places.
        `metrics` are numbers (an array or tensor of one element is taken as its own) or what else JSON gives back as it is;
        anything else raises TypeError.

        Raises what a save that was in flight ran into, too. Nothing older is deleted before this one is durable.
        """
        step = _objects.whole(step)
        with self._on_sigterm.held_off() if self._on_sigterm else nullcontext(), self._claim.turn:
            given, metrics = _objects.sort(objects), _objects.numbers(metrics or {})
            if self._is_one_of_many:
                self._save_together(step, metrics, given)
            else:
                self._save_alone(step, metrics, given)

    @property
    def rules(self) -> Keep | None:
        """The policy that the newest checkpoint was saved under; None where it was somebody's own function.

        >>> import tempfile
        >>> directory = tempfile.mkdtemp()
        >>> with CheckpointManager(directory, keep=last(2)) as manager:
        ...     manager.save(1, epoch=1)
        >>> CheckpointManager(directory).rules
        last(2)
        """
        latest = self.latest
        written = None if latest is None else _manifest.read(latest.path).keep
        return None if written is None else _keep.parse(written)

    def prune(self, keep: Keep | int | None = None, *, dry_run: bool = False) -> list[Saved]:
        """Delete what a policy (the manager's own, unless another is given) lets go; what that is, oldest first.

        With `dry_run` nothing is deleted. The newest checkpoint stays, whatever the policy says.
        """
        chosen = self._keep if keep is None else _keep.policy(keep)
        with self._claim.turn:
            self.wait()
            if dry_run:
                return expired(self.checkpoints, chosen)
            self._claim.hold()
            return self._remove_expired(chosen)

    def wait(self) -> None:
        """Return when every save is durable; raises what one ran into."""
        with self._claim.turn:
            if self._background.running:
                with self._meter.shown():
                    self._background.settle()
            self._background.raise_error()

    def close(self) -> None:
        """Wait for the save in flight, and let go of the directory."""
        with self._claim.turn:
            try:
                self.wait()
            finally:
                self._claim.release()
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
        """Load the newest checkpoint that verifies into the objects given, or return None on a first run.

        `at` is another checkpoint to load: its step, or what `best` returned. It has to be there, and to verify.

        All or nothing: every object is tried before the first is changed. `options` are `load_state_dict`'s, by object name
        (`options={"model": {"exclude": "head"}, "optimizers/0": {"strict": False}}`); `limits`, where given, those of this
        call. Random state is restored unless the manager says otherwise.

        Raises UnknownNameError where the checkpoint holds no such object or the run no such step, LoadError where an object
        does not fit, OSError where the newest checkpoint cannot be read now: only one that was read and is damaged is passed
        over.
        """
        wanted = _objects.flat(objects)
        find = self._find if at is None else partial(_resume.find_step, self.directory, _step(at))
        with self._claim.turn:
            self.wait()
            while True:
                found = _distributed.on_first(find) if self._is_one_of_many else find()
                if found.path is None or found.manifest is None:
                    found.refuse_damaged(self.directory)
                    return None
                try:
                    read = Reading(found.path, found.manifest, limits or self._limits)
                    return read.into(wanted, options or {}, tuple(found.passed_over), random=self._random)
                except FileNotFoundError:
                    # The process that trains has deleted it meanwhile: there is a newer one.
                    if found.path.is_dir() or self._is_one_of_many:
                        raise

    def __enter__(self) -> Self:
        self._claim.kept = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._claim.kept = False
        self.close()

    # inside

    @property
    def _is_one_of_many(self) -> bool:
        return _distributed.world()[1] > 1

    def _find(self) -> _resume.Found:
        return _resume.find(self.directory, self._claim)

    def _save_alone(self, step: int, metrics: Mapping[str, Any], given: _objects.Sorted) -> None:
        if self._busy == "wait":
            self._background.wait()
        self._claim.hold()
        if not self._asynchronous:
            content = self._content(step, metrics, given)
            meter = _meter(content)
            with meter.shown():
                self._write(content, meter)
            return
        self._background.raise_error()
        memory = self._memory.pop() if self._memory else {}
        content, kept = copied(self._content(step, metrics, given, copied=True), memory)
        # Its bar is for who waits for it.
        meter = self._meter = _meter(content)
        self._background.submit(
            lambda: self._write_and_return(content, meter, kept), dropped=lambda: self._memory.append(kept)
        )

    def _content(
        self, step: int, metrics: Mapping[str, Any], given: _objects.Sorted, *, copied: bool = False
    ) -> _save.Content:
        """What this save writes: the live state; `copied`: of which nothing is written, but a copy of it."""
        states = _objects.states(given, random=self._random, copied=copied)
        frozen = {name: frozen_names(value, states[name]) for name, value in given.stateful.items()}
        return _save.Content(step, metrics, given.plain, states, _keep.dump(self._keep), frozen)

    def _write(self, content: _save.Content, meter: Meter) -> None:
        with _directory.explained(self.directory):
            # What an earlier save could not delete, because the disk or the directory was not there, goes now.
            _directory.tidy(self.directory)
            _save.write(self.directory, content, meter, durable=self._durable)
        self._prune_after(content.step)

    def _save_together(self, step: int, metrics: Mapping[str, Any], given: _objects.Sorted) -> None:
        """A save of all ranks, which is waited for: rank 0 holds the directory, writes what is not sharded, and prunes."""
        _distributed.on_first(self._claim.hold)
        alone = given._replace(stateful={n: v for n, v in given.stateful.items() if not _distributed.is_sharded(v)})
        states = _objects.states(alone, random=False)
        content = _save.Content(step, metrics, given.plain, states, _keep.dump(self._keep))
        _distributed.save(self.directory, content, given, random=self._random, durable=self._durable)
        _distributed.on_first(lambda: self._prune_after(step))

    def _prune_after(self, step: int) -> None:
        """Delete what the policy lets go after a save."""
        with _directory.following(self.directory, step, "deleting older checkpoints"):
            self._remove_expired(self._keep, saved=step)

    def _remove_expired(self, keep: Keep, *, saved: int | None = None) -> list[Saved]:
        """Delete what a policy lets go, but not the step that was `saved` just now: a rerun may be behind the newest."""
        gone = [each for each in expired(self.checkpoints, keep) if each.step != saved]
        for each in gone:
            _directory.remove(self.directory, each.path)
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
        """What a forked child does with its copy: the lock, the turn and the thread are its parent's."""
        self._claim.forget()
        self._background.forget()
        self._memory = []
        if self._on_sigterm:
            self._on_sigterm.begin_anew()


def _finish(background: Background, claim: Claim) -> None:
    with claim.turn:
        try:
            background.wait()
        finally:
            claim.release()


def _step(at: Any) -> int:
    return at.step if isinstance(at, Saved) else _objects.whole(at)


def _meter(content: _save.Content) -> Meter:
    # Only where somebody looks is the size worth asking every tensor for.
    return Meter(f"saving step {content.step}", _save.nbytes(content) if watched() else 0)


def _after_fork() -> None:
    for manager in list(MANAGERS):
        manager._forget()


# A child that outlives its parent (a worker that loads data) would hold the parent's lock with the descriptor it inherited.
MANAGERS: weakref.WeakSet[CheckpointManager] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
