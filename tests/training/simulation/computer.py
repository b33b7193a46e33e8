"""A computer whose processes run one system call or request at a time, in an order that a seed draws, until they or it dies.

Each actor (a writer, a reader, …) is a thread, and so is a save in the background, but only one runs at any time: the one
whose turn it is. Before each system
call the running one may have to pass the turn to another, its process may be killed, or the power may be cut; so a seed
determines everything that happens. A killed process makes no further call: its next one raises KilledError, and so do all
others that its `finally` blocks try to make.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from .disk import Disk
from .process import FIRST_DESCRIPTOR, OpenFile, Process

# The simulated clock begins here, and a system call takes so long (ns).
BEGINNING, CALL = 1_800_000_000_000_000_000, 1_000_000
# The average number of system calls before something happens: from every call to once in a save.
TEMPOS = (0.7, 3, 10, 30, 80)


VERBS = {
    "stat": "looks at {}",
    "fstat": "looks at {}",
    "list": "lists {}",
    "mkdir": "makes the directory {}",
    "rmdir": "deletes the directory {}",
    "unlink": "deletes {}",
    "rename": "renames {} to {}",
    "exchange": "exchanges {} and {}",
    "link": "links {} as {}",
    "utime": "touches {}",
    "statvfs": "asks how much is free in {}",
    "open": "opens {}",
    "close": "closes {}",
    "lock": "locks {}",
    "read": "reads {}",
    "write": "writes {} {}",
    "resize": "resizes {} {}",
    "allocate": "reserves for {} {}",
    "fsync": "flushes {}",
    "sleep": "waits {}",
    "put": "writes {}",
    "upload": "uploads {}",
    "copy": "copies to {}",
    "delete": "deletes {}",
}


class KilledError(BaseException):
    """The process has ended; nothing that its code does has an effect."""


class Computer:
    """The disk or store, the processes that use it, and what happens to them.

    Attributes:
        medium: where the processes keep what they save.
        is_concurrent: whether they run side by side, and may be interrupted; otherwise one runs in peace.
        log: what happened, if it is wanted: (process, call, what it was called with).
        failure: the first error that was not one of a dead process.
        crashes: how many more processes may be killed, or times the power may be cut.
    """

    def __init__(
        self,
        random: Random,
        medium: Callable[[Callable[[], int]], Any] = Disk,
        *,
        crashes: int,
        power: bool = True,
        log: list[str] | None = None,
    ) -> None:
        self.random = random
        self.clock = BEGINNING
        self.medium = medium(lambda: self.clock)
        self.running: Process | None = None
        self.has_exchange = random.random() < 0.7
        self.open_files: dict[int, OpenFile] = {}
        self.pids, self.descriptors = count(100), count(FIRST_DESCRIPTOR)
        self.log = log
        self.failure: BaseException | None = None
        self.crashes = crashes
        self.power = power
        self.is_on = True
        self.calls = self.kills = self.cuts = 0
        self._tempo = random.choice(TEMPOS)
        self.is_concurrent = False
        self._left = 0
        self._processes: list[Process] = []
        self._ready: list[_Turn] = []
        self._main = _Turn("the test")
        self._now = self._main

    def start(self, name: str) -> Process:
        """A new process, which the calling thread is from now on."""
        process = self.running = Process(self, name)
        self._processes.append(process)
        self.say(process, "starts")
        return process

    def end(self) -> None:
        """End the running process, which has done all that it wanted."""
        process, self.running = self.running, None
        if process is not None:
            process.die()
            self._processes.remove(process)

    def say(self, who: object, what: str) -> None:
        """Add a line to the log."""
        if self.log is not None:
            self.log.append(f"{who} {what}")

    def run(self, actors: dict[str, Callable[[], None]]) -> None:
        """Run actors, one system call of one of them at a time, until all have ended or the power was cut."""
        self.is_on, self.is_concurrent = True, True
        self._pause()
        turns = [_Turn(name) for name in actors]
        self._ready = list(turns)
        for turn, act in zip(turns, actors.values()):
            WORKERS.start(lambda turn=turn, act=act: self._act(turn, act))
        self._pass(self._main, self.random.choice(turns))
        self.is_concurrent = False
        self._kill_all()
        if self.failure is not None:
            raise self.failure

    def spawn(self, process: Process, name: str, job: Callable[[], None]) -> None:
        """Start a thread of a process, which takes turns with all others; RuntimeError if nobody runs side by side."""
        if not self.is_concurrent:
            raise RuntimeError("can't start new thread")

        def act() -> None:
            self.running = process
            job()

        turn = _Turn(f"{process}, {name}")
        self._ready.append(turn)
        WORKERS.start(lambda: self._act(turn, act))

    def step(self, process: Process, call: str, *arguments: object) -> None:
        """Called by a process before each of its system calls, which may be its last."""
        if process.is_dead:
            raise KilledError
        self.calls += 1
        self.clock += CALL
        if self.is_concurrent:
            self._left -= 1
            if self._left < 0:
                self._interrupt(process)
        if self.log is not None:
            self.log.append(f"{process} {VERBS.get(call, call).format(*arguments)}".replace("/simulated/run/", ""))

    def wait(self, process: Process, is_over: Callable[[], bool]) -> None:
        """Let others run, also other threads of the process, until a condition is true."""
        while not is_over():
            others = self._others()
            if not others:
                raise AssertionError(f"{process} waits for a lock or a thread, and nobody else runs")
            self._switch(process, others)

    def sleep(self, process: Process, seconds: float) -> None:
        """Let others run, and time pass."""
        self.clock += int(seconds * 1e9)
        if others := self._others():
            self._switch(process, others)

    def kill(self, process: Process) -> None:
        """End a process, as `kill -9` does; raises KilledError, since it was running."""
        self.say(process, "IS KILLED")
        self.kills += 1
        process.die()
        raise KilledError

    # parts

    def _interrupt(self, process: Process) -> None:
        """Do what the seed draws: pass the turn on, kill this process, or cut the power."""
        self._pause()
        drawn = self.random.random()
        if self.crashes and drawn < 0.25:
            self.crashes -= 1
            if self.power and drawn < 0.15:
                self.say("THE POWER", "IS CUT")
                self.is_on = False
                self.cuts += 1
                self._kill_all()
                self.medium.cut(self.random)
                raise KilledError
            self.kill(process)
        if others := self._others():
            self._switch(process, others)

    def _others(self) -> list[_Turn]:
        return [turn for turn in self._ready if turn is not self._now]

    def _pause(self) -> None:
        self._left = int(self.random.expovariate(1 / self._tempo))

    def _switch(self, process: Process, others: list[_Turn]) -> None:
        mine = self._now
        self._pass(mine, self.random.choice(others))
        self.running = process
        if process.is_dead:
            raise KilledError

    def _kill_all(self) -> None:
        for process in self._processes:
            process.die()
        self._processes = []

    def _act(self, turn: _Turn, act: Callable[[], None]) -> None:
        turn.wait()
        try:
            if self.is_on and self.failure is None:
                act()
        except KilledError:
            pass
        except BaseException as error:  # raised again by `run`
            if self.failure is None:
                self.failure = error
                self._kill_all()
        self.running = None
        self._ready.remove(turn)
        following = self.random.choice(self._ready) if self._ready else self._main
        self._now = following
        following.go()

    def _pass(self, mine: _Turn, following: _Turn) -> None:
        self._now = following
        following.go()
        mine.wait()


class _Turn:
    """Whose turn it is: a thread that waits until another one says `go`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._lock.acquire()

    def go(self) -> None:
        self._lock.release()

    def wait(self) -> None:
        self._lock.acquire()


class _Workers:
    """Threads that are used again: starting one takes as long as a dozen turns."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._mutex = threading.Lock()

    def start(self, job: Callable[[], None]) -> None:
        with self._mutex:
            worker = self._idle.pop() if self._idle else _Worker(self._return)
        worker.do(job)

    def _return(self, worker: _Worker) -> None:
        with self._mutex:
            self._idle.append(worker)


class _Worker:
    def __init__(self, ended: Callable[[_Worker], None]) -> None:
        self._ended = ended
        self._job: Callable[[], None] | None = None
        self._called = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True, name="simulated process").start()

    def do(self, job: Callable[[], None]) -> None:
        self._job = job
        self._called.release()

    def _run(self) -> None:
        while True:
            self._called.acquire()
            job, self._job = self._job, None
            if job is not None:
                job()
            del job
            self._ended(self)


WORKERS = _Workers()
