"""CheckpointManager: one object in place of the twenty lines that everyone writes."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from statedict import _api
from statedict.errors import FormatError, LockedError

from . import _directory, _distributed, _layout, _objects, _random, _resume, _save
from ._background import Background, Busy
from ._keep import Keep, Saved, expired, last, ranked
from ._lock import Lock
from ._progress import showing
from ._restore import restore, stored_values
from ._resume import PassedOver
from ._shared import frozen_names


@dataclass(frozen=True, slots=True)
class Resumed:
    """What `resume` gives: where the run stands.

    Attributes:
        step, metrics: as they were given to `save`.
        values: the plain values given to `save`, by name.
        path: the checkpoint's directory.
        reports: object name → the report of its load.
        passed_over: newer checkpoints that did not verify, and why.
    """

    step: int
    metrics: Mapping[str, Any]
    values: Mapping[str, Any]
    path: Path
    reports: Mapping[str, Any] = field(default_factory=dict)
    passed_over: tuple[PassedOver, ...] = ()


class CheckpointManager:
    """Saves a run's checkpoints in a directory, and resumes from them.

    Args:
        directory: where they lie; made if it is not there. One manager at a time may save in it.
        keep: which checkpoints to keep (`last`, `every`, `best`, `any_of`): the newest is kept whatever it says, and none
            is deleted before its successor is durable.
        asynchronous: `save` returns once the state is copied, and a thread writes it.
        busy: what an asynchronous save does when one is in flight: `"wait"` for it, or `"replace"` the one that waits.
        durable: flush to the disk before a checkpoint gets its name; without it a power cut may damage the newest.
        random: save and restore the state of Python's, NumPy's and torch's generators.
        on_sigterm: finish the write in hand when SIGTERM comes, and then end as the signal would have.

    Raises LockedError at the first save where somebody else saves in the directory.

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
        keep: Keep | None = None,
        asynchronous: bool = False,
        busy: Busy = "wait",
        durable: bool = True,
        random: bool = True,
        on_sigterm: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self._keep = keep or last(3)
        self._asynchronous, self._busy, self._durable, self._random = asynchronous, busy, durable, random
        self._lock: Lock | None = None
        self._background = Background()
        self._memory: list[dict[str, Any]] = []
        atexit.register(self._at_exit)
        if on_sigterm:
            self._finish_on_sigterm()

    # what is there

    @property
    def checkpoints(self) -> list[Saved]:
        """The run's checkpoints, oldest first."""
        return _layout.saved(self.directory)

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

        Raises what a save that was in flight ran into, too. Nothing older is deleted before this one is durable.
        """
        if type(step) is not int or step < 0:
            raise ValueError(f"step is a whole number from 0 on, not {step!r}")
        given = _objects.sort(objects)
        if _distributed.world()[1] > 1:
            self._save_together(step, metrics or {}, given)
            return
        self._hold()
        if not self._asynchronous:
            self._write(self._content(step, metrics or {}, given, {}, copied=False))
            return
        if self._busy == "wait":
            self._background.wait()
        self._background.raise_error()
        memory = self._memory.pop() if self._memory else {}
        content = self._content(step, metrics or {}, given, memory, copied=True)
        kept = dict(content.states)
        self._background.submit(
            lambda: self._write_and_return(content, kept), dropped=lambda: self._memory.append(kept)
        )

    def prune(self, keep: Keep | None = None, *, dry_run: bool = False) -> list[Saved]:
        """Delete what a policy (the manager's own, unless another is given) lets go; what that is, oldest first.

        With `dry_run` nothing is deleted. The newest checkpoint stays, whatever the policy says.
        """
        self.wait()
        if dry_run:
            return expired(self.checkpoints, keep or self._keep)
        self._hold()
        return self._remove_expired(keep)

    def wait(self) -> None:
        """Return when every save is durable; raises what one ran into."""
        self._background.wait()

    def close(self) -> None:
        """Wait for the save in flight, and let go of the directory."""
        atexit.unregister(self._at_exit)
        try:
            self.wait()
        finally:
            self._release()

    # resuming

    def resume(self, *, options: Mapping[str, Mapping[str, Any]] | None = None, **objects: Any) -> Resumed | None:
        """Load the newest checkpoint that verifies into the objects given, or return None on a first run.

        All or nothing: every object is tried before the first is changed. `options` are `load_state_dict`'s, by object name
        (`options={"model": {"exclude": "head"}}`). Random state is restored unless the manager says otherwise.

        Raises UnknownNameError where the checkpoint holds no such object, LoadError where one does not fit.
        """
        self._background.wait()
        found, passed_over = self._found() if _distributed.world()[1] == 1 else _distributed.on_first(self._found)
        if found.path is None or found.manifest is None:
            if passed_over:
                listed = "; ".join(map(str, passed_over))
                raise FormatError(f"none of the checkpoints verifies: {listed}", file=str(self.directory))
            return None
        manifest, path = found.manifest, found.path
        with showing(f"resuming from step {manifest.step}", manifest.nbytes):
            reports = restore(path, manifest.objects, objects, options or {})
            values = dict(manifest.values) | stored_values(path, manifest.objects)
            if self._random:
                _random.restore(path, manifest)
        return Resumed(manifest.step, manifest.metrics, values, path, reports, passed_over)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # inside

    def _content(
        self, step: int, metrics: Mapping[str, Any], given: _objects.Sorted, memory: dict[str, Any], *, copied: bool
    ) -> _save.Content:
        """What this save writes; `copied`: as a copy, in the memory of an earlier one, that training may leave behind."""
        states = _objects.states(given, random=self._random)
        if copied:
            states = {name: _api.snapshot(state, out=memory.get(name)) for name, state in states.items()}
        frozen = {name: frozen_names(value) for name, value in given.stateful.items()}
        return _save.Content(step, dict(metrics), given.plain, states, frozen)

    def _write(self, content: _save.Content) -> None:
        with showing(f"saving step {content.step}", quiet=self._asynchronous):
            _save.write(self.directory, content, durable=self._durable)
            self._remove_expired()

    def _save_together(self, step: int, metrics: Mapping[str, Any], given: _objects.Sorted) -> None:
        """A save of all ranks, which is waited for: rank 0 holds the directory, writes what is not sharded, and prunes."""
        _distributed.on_first(self._hold)
        alone = given._replace(stateful={n: v for n, v in given.stateful.items() if not _distributed.is_sharded(v)})
        content = _save.Content(step, dict(metrics), given.plain, _objects.states(alone, random=False))
        _distributed.save(self.directory, content, given, random=self._random, durable=self._durable)
        _distributed.on_first(self._remove_expired)

    def _remove_expired(self, keep: Keep | None = None) -> list[Saved]:
        gone = expired(self.checkpoints, keep or self._keep)
        for saved in gone:
            _directory.remove(self.directory, saved.path)
        return gone

    def _found(self) -> tuple[_resume.Found, tuple[PassedOver, ...]]:
        """The checkpoint to resume from, and those that were passed over, which are set aside."""
        found = _resume.newest(self.directory)
        return found, tuple(self._set_aside(entry) for entry in found.passed_over)

    def _write_and_return(self, content: _save.Content, memory: dict[str, Any]) -> None:
        try:
            self._write(content)
        finally:
            self._memory.append(memory)

    def _hold(self) -> None:
        if self._lock is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.directory)
            _directory.tidy(self.directory)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _set_aside(self, entry: PassedOver) -> PassedOver:
        """Move a damaged checkpoint out of the way, unless somebody else saves here (then it stays as it is)."""
        try:
            self._hold()
        except (LockedError, OSError):
            return entry
        moved = _directory.set_aside(self.directory, entry.path)
        return entry if moved is None else entry._replace(path=moved)

    def _at_exit(self) -> None:
        self.close()

    def _finish_on_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("on_sigterm needs the main thread: signals are handled there")
        before = signal.getsignal(signal.SIGTERM)

        def finish(number: int, frame: Any) -> None:
            try:
                self.close()
            finally:
                signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
                os.kill(os.getpid(), number)

        signal.signal(signal.SIGTERM, finish)
