"""One schedule: a seed draws who uses a run, what each does, the order of their system calls, and the crashes.

    writer    resumes, saves some steps (sometimes the same one again), closes; in every fourth schedule, a thread writes the
              saves while it trains on, and each save waits for the one before
    rival     another writer, in another process
    pruner    deletes all but the newest checkpoints
    pinner    pins a step, or unpins one
    reader    resumes, from the newest checkpoint or from a step, and compares every value

A killed process is sometimes started again. After each power cut, and at the end, a new process resumes and saves in peace.

The run is on a disk, or (StoreSchedule) in an object store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import numpy as np

import statedict
from statedict import CheckpointManager, last, nn
from statedict.errors import (
    AfterSaveError,
    ConflictError,
    LockedError,
    RemoteError,
    UnknownFormatError,
    UnknownNameError,
)

from .calls import CALLS, ROOT
from .client import SCHEME
from .computer import Computer, KilledError
from .disk import contents_of
from .promises import LOADABLE, ONE_VERSION, PINS, WHOLE, Contents, Promises, require
from .store import Store

RUN = f"{ROOT}/run"
# What a frozen parameter has in all checkpoints.
FROZEN = 7.0
# How a folder is marked that is not a checkpoint.
LEFT = "left: "


class Model(nn.Module):
    """A model with a parameter that is the version, and a frozen one."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.base = nn.Parameter(np.full(2, FROZEN), requires_grad=False)
        self.head = nn.Parameter(np.full(2, float(version)))


class Schedule:
    """What happens to a run on a disk with one seed. `log` gets a line for each system call.

    Raises BrokenError, or whatever error the library has raised although nothing justified it.
    """

    run_at = RUN

    def __init__(self, seed: int, log: list[str] | None = None) -> None:
        self.random = Random(seed)
        self.durable = self.random.random() < 0.9
        crashes = self.random.choice((0, 1, 1, 1, 2, 2, 3))
        self.computer = self._computer(crashes, log)
        self.keep = self.random.randint(1, 3)
        self.promises = Promises(self.keep)
        # What a checkpoint has beside its manifest; the more, the longer a schedule takes.
        self.kind = self.random.choices(("nothing", "a file", "shards"), (5, 3, 1))[0]
        # By the seed itself, so that the schedules in which every save is waited for stay what they are.
        self.asynchronous = seed % 4 == 3
        self._managers: list[CheckpointManager] = []
        # The step and the version that each manager is saving in the background.
        self._pending: dict[CheckpointManager, tuple[int, int]] = {}

    def run(self) -> None:
        """Play the schedule to its end."""
        CALLS.computer = self.computer
        try:
            if self.random.random() < 0.5:
                self._prepare()
            while True:
                self.computer.run(self._actors())
                self._check_after_crash()
                if self.computer.is_on:
                    return
        finally:
            # Those of dead processes, which would otherwise close their descriptors when Python ends.
            for manager in self._managers:
                manager._background.forget()
                manager.close()
            CALLS.computer = None

    def _prepare(self) -> None:
        """Save some steps in peace, so that there is something to lose."""
        self.computer.start("first writer")
        manager = self._manager()
        for step in range(1, self.random.randint(2, self.keep + 1)):
            self._save(manager, step)
        self._close(manager)
        self.computer.end()

    # actors

    def _actors(self) -> dict[str, Callable[[], None]]:
        chances = {"writer": 1.0, "rival": 0.35, "pruner": 0.35, "pinner": 0.35, "reader": 0.6}
        scripts = {
            "writer": self._write,
            "rival": self._write,
            "pruner": self._prune,
            "pinner": self._pin,
            "reader": self._read,
        }
        names = [name for name, chance in chances.items() if self.random.random() < chance]
        return {name: partial(self._live, name, scripts[name]) for name in names}

    def _live(self, name: str, script: Callable[[CheckpointManager], None]) -> None:
        """Run an actor in a process, and in another one if that is killed."""
        while True:
            self.computer.start(name)
            manager = self._manager()
            try:
                for act in (script, self._close):
                    with self._justified():
                        act(manager)
                self.computer.end()
                return
            except KilledError:
                if not self.computer.is_on:
                    raise
                self.promises.check_names(self._visible())
            if self.random.random() < 0.5:
                return

    def _write(self, manager: CheckpointManager) -> None:
        step = self._start(manager)
        for _ in range(self.random.randint(1, 2)):
            step = max(1, step + (self.random.random() < 0.75))
            self._save(manager, step)

    def _prune(self, manager: CheckpointManager) -> None:
        keep = self.random.randint(1, self.keep)
        self.promises.keep = min(keep, self.promises.keep)
        gone = manager.prune(last(keep))
        self._say(f"has deleted {[saved.step for saved in gone]}")

    def _pin(self, manager: CheckpointManager) -> None:
        # Mostly the oldest, which others want to delete.
        for step in list(manager)[: self.random.choice((1, 1, 2, 3))]:
            if self.random.random() < 0.8:
                try:
                    manager.pin(step)
                    self.promises.pinned.add(step)
                    self._say(f"has pinned step {step}")
                except UnknownNameError:
                    self._say(f"cannot pin step {step}: it is gone")
            else:
                self.promises.pinned.discard(step)
                manager.unpin(step)

    def _read(self, manager: CheckpointManager) -> None:
        for _ in range(self.random.randint(1, 2)):
            pinned = sorted(self.promises.pinned)
            if pinned and self.random.random() < 0.5:
                self._resume(manager, at=self.random.choice(pinned))
            else:
                self._resume(manager)

    # steps of actors

    def _manager(self) -> CheckpointManager:
        manager = CheckpointManager(
            self.run_at, keep=last(self.keep), random=False, durable=self.durable, asynchronous=self.asynchronous
        )
        self._managers.append(manager)
        return manager

    def _save(self, manager: CheckpointManager, step: int) -> None:
        process = self.computer.running
        assert process is not None
        version = self.promises.begin(step, process)
        self._say(f"saves version {version} as step {step}")
        objects: dict[str, Any] = {}
        if self.kind == "a file":
            # JSON has no tuples, so this value gets a file of its own.
            objects["content"] = (version,)
        elif self.kind == "shards":
            objects["model"] = Model(version)
        try:
            # It waits for the save in the background, if there is one.
            manager.save(step, version=version, **objects)
        except Exception as error:
            self._settle(manager, error)
            self.promises.fail(version, is_written=not (self.asynchronous or isinstance(error, LockedError)))
            raise
        self._settle(manager)
        self._pending[manager] = step, version
        if not self.asynchronous:
            self._settle(manager)
            return
        self._say("trains on")
        if "model" in objects:
            np.asarray(objects["model"].head)[:] = -1
        if self.random.random() < 0.5:
            list(manager)

    def _close(self, manager: CheckpointManager) -> None:
        try:
            manager.close()
        except Exception as error:
            self._settle(manager, error)
            raise
        self._settle(manager)

    def _settle(self, manager: CheckpointManager, error: Exception | None = None) -> None:
        """Note how the save in the background has ended, if there was one: it failed if the error is its own."""
        step, version = self._pending.pop(manager, (0, 0))
        failed = isinstance(error, AfterSaveError) or "was not saved" in str(getattr(error, "__notes__", ""))
        if version and failed:
            self.promises.fail(version, is_written=not isinstance(error, LockedError))
        elif version:
            self.promises.end(step, version, is_late=self.asynchronous)
            self._say(f"has saved version {version} as step {step}")

    def _resume(self, manager: CheckpointManager, at: int | None = None) -> int:
        """Resume and check what was read; return the step."""
        newest, version_before = self.promises.newest, self.promises.version
        possible = {step: set(versions) for step, versions in self.promises.contents.items()}
        objects = {"model": Model(0)} if self.kind == "shards" else {}
        self._say("resumes" if at is None else f"resumes at step {at}")
        try:
            resumed = manager.resume(at=at, **objects)
        except UnknownNameError:
            require(at not in self.promises.pinned, LOADABLE, f"the pinned step {at} cannot be found")
            return 0
        if resumed is None:
            require(not newest, LOADABLE, f"step {newest} was saved, and the reader found no checkpoint")
            return 0
        self._say(f"has resumed step {resumed.step}, version {resumed.values.get('version')}")
        require(not resumed.passed_over, WHOLE, f"damaged: {resumed.passed_over}")
        step, version = resumed.step, resumed.values["version"]
        require(step == at if at else step >= newest, LOADABLE, f"resumed step {step}, but {at or newest} was saved")
        is_possible = version > version_before or version in possible.get(step, ())
        require(is_possible, LOADABLE, f"step {step} has version {version}, and should have {possible.get(step)}")
        parts = {*resumed.values.get("content", ())}
        for model in objects.values():
            require(np.array_equal(model.base, np.full(2, FROZEN)), ONE_VERSION, f"the frozen values are {model.base}")
            parts |= {*np.asarray(model.head).tolist()}
        require(parts <= {version}, ONE_VERSION, f"step {step} has version {version} and parts of {parts}")
        return step

    def _check_after_crash(self) -> None:
        """A new process resumes in peace, then saves in peace; it must find everything."""
        self._say("--- a new process looks")
        self.promises.check_names(self._visible())
        self.computer.start("recovery")
        manager = self._manager()
        self._recover(manager)
        self._close(manager)
        self.promises.check_kept(self.promises.check_names(self._visible()))
        self.promises.check_space(self._contents(), self.keep)
        self.computer.end()

    def _recover(self, manager: CheckpointManager) -> int:
        """Resume, and save another step; return it."""
        step = self._resume(manager) + 1
        self._save(manager, step)
        return step

    def _say(self, what: str) -> None:
        self.computer.say(self.computer.running or "", what)

    # what is different in an object store

    def _start(self, manager: CheckpointManager) -> int:
        """The step from which a writer goes on."""
        return self._resume(manager) if self.random.random() < 0.4 else _newest(manager)

    def _computer(self, crashes: int, log: list[str] | None) -> Computer:
        computer = Computer(self.random, crashes=crashes, power=self.durable, log=log)
        computer.medium.create(ROOT, folder=True)
        computer.medium.sync(computer.medium.root)
        return computer

    def _contents(self) -> Contents:
        """The files of the run, as they are now."""
        return contents_of((self.computer.medium.find(ROOT).entries or {}).get("run"))

    def _visible(self) -> Contents:
        """What readers may take for a checkpoint: every directory with a step's name."""
        return self._contents()

    @contextmanager
    def _justified(self) -> Iterator[None]:
        """Suppress the errors with which a process may be told that it cannot do what it wants."""
        try:
            yield
        except LockedError:
            self._say("is refused: another process saves here")


class StoreSchedule(Schedule):
    """What happens to a run in an object store with one seed. `log` gets a line for each request."""

    run_at = f"{SCHEME}://bucket/run"

    def _start(self, manager: CheckpointManager) -> int:
        """Sometimes an older step, of a job that goes back."""
        return super()._start(manager) - self.random.choice((0, 0, 0, 1, 2))

    def _recover(self, manager: CheckpointManager) -> int:
        """Resume, and save twice: what was still on its way arrives between the two."""
        step = super()._recover(manager)
        self.computer.medium.settle()
        self.promises.check_names(self._visible())
        self._save(manager, step + 1)
        return step + 1

    def _computer(self, crashes: int, log: list[str] | None) -> Computer:
        staleness, faults = self.random.choice((0, 0.1, 0.5)), self.random.choice((0, 0.01, 0.05, 0.2))
        return Computer(self.random, partial(Store, staleness=staleness, faults=faults), crashes=crashes, log=log)

    def _read(self, manager: CheckpointManager) -> None:
        super()._read(manager)
        if self.random.random() < 0.5:
            self._open()

    def _open(self) -> None:
        """Open the run without a manager, and check what was found."""
        newest = self.promises.newest
        self._say("opens the run")
        try:
            with statedict.open(self.run_at) as checkpoint:
                self._say(f"has opened {checkpoint.notes}")
                require("damaged" not in str(checkpoint.notes), WHOLE, str(checkpoint.notes))
                step = int(checkpoint.metadata["statedict.step"])
                require(step >= newest, LOADABLE, f"step {newest} was saved, and step {step} opened")
        except (FileNotFoundError, UnknownFormatError) as error:
            # What a folder is, is known from the list of its names.
            is_old = isinstance(error, FileNotFoundError) and self.computer.medium.staleness
            require(not newest or is_old, LOADABLE, f"step {newest} was saved: {error}")

    def _contents(self) -> Contents:
        """The files by folder. The pins are where a directory has them; other folders than checkpoints are marked."""
        objects = {key.removeprefix("bucket/run/"): content for key, content in self.computer.medium.objects.items()}
        index = json.loads(objects.get(".run", b'{"checkpoints": {}, "pinned": []}'))
        found: Contents = {name: {} for name in index["checkpoints"].values()}
        if index["pinned"]:
            found[PINS] = {str(step): b"" for step in index["pinned"]}
        for key, content in objects.items():
            name, _, file = key.partition("/")
            found.setdefault(name if name in found or not file else f"{LEFT}{name}", {})[file] = content
        return found

    def _visible(self) -> Contents:
        return {name: files for name, files in self._contents().items() if not name.startswith(LEFT)}

    @contextmanager
    def _justified(self) -> Iterator[None]:
        process = self.computer.running
        assert process is not None
        try:
            with super()._justified():
                yield
        except (AfterSaveError, ConflictError) as error:
            self._say(f"is told: {error}")
        except RemoteError as error:
            if not process.faults:
                raise
            self._say(f"gives up: {error}")


def _newest(manager: CheckpointManager) -> int:
    latest = manager.latest
    return 0 if latest is None else latest.step


WORLDS: dict[str, type[Schedule]] = {"disk": Schedule, "store": StoreSchedule}
