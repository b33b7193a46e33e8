"""Processes that train, tell over a pipe what they do, and are killed: what `kill` and `kill_ranks` share.

They are forked from one that has imported everything, so that a life costs a fraction of the seconds that importing torch
takes.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import select
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

# Before torch and NumPy are imported: a process that has threads is better not forked.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Gloo and the stores warn of every process that ends.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import torch
from tests.forked import child

from statedict import CheckpointManager

HIDDEN = (".saving-", ".trash-", ".old-")
# Seconds. A life that says nothing for so long hangs.
PATIENCE = 60.0
# A process tells what kind of thing it does, and a step or rank.
Say = Callable[[int, int], None]


class Training:
    """A training whose whole state is a function of the step, so that the values of any step are known.

    The backbone is frozen, and large enough to be a shard that checkpoints share.
    """

    def __init__(self) -> None:
        self.model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(600, 600), "head": torch.nn.Linear(200, 200)})
        self.model["backbone"].requires_grad_(False)
        torch.nn.init.constant_(self.model["backbone"].weight, 0.5)
        torch.nn.init.constant_(self.model["backbone"].bias, 0.25)
        self.optimizer = torch.optim.Adam(self.model["head"].parameters())

    def go_to(self, step: int) -> None:
        torch.manual_seed(step)
        for parameter in self.model["head"].parameters():
            parameter.data.copy_(torch.randn(parameter.shape))
            moments = {"exp_avg": torch.randn(parameter.shape), "exp_avg_sq": torch.rand(parameter.shape)}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}

    @property
    def objects(self) -> dict[str, object]:
        return {"model": self.model, "optimizer": self.optimizer}

    def values(self) -> list[torch.Tensor]:
        """Everything that a resume brings back, and what is drawn next."""
        states = [self.optimizer.state[parameter] for parameter in self.model["head"].parameters()]
        moments = [value for state in states for _, value in sorted(state.items())]
        return [*self.model.state_dict().values(), *moments, torch.rand(4)]


class Said(NamedTuple):
    """What a process tells of itself, and when it was heard."""

    rank: int
    kind: int
    number: int
    time: float


class Life:
    """Some processes, each of which does `live(rank, say)`; a context manager that ends them.

    Attributes:
        said: what was heard of them.
        hangs: whether nothing was heard for too long.
        statuses: how each process has ended (as of `os.waitpid`), after `end`.
    """

    def __init__(self, live: Callable[[int, Say], object], size: int = 1) -> None:
        self.said: list[Said] = []
        self.hangs = False
        self.statuses: list[int] = []
        self._pipe, tell = os.pipe()
        self.processes = [child(partial(_live, live, rank, tell)) for rank in range(size)]
        os.close(tell)

    def hear(self) -> Said | None:
        """The next thing that one of the processes says; None if all have ended, or say nothing any more."""
        if not select.select([self._pipe], [], [], PATIENCE)[0]:
            self.hangs = True
            for process in self.processes:
                # Print the stacks of all threads; see `_live`.
                os.kill(process, signal.SIGUSR1)
            time.sleep(1)
            return None
        raw = os.read(self._pipe, 10)
        if not raw:
            return None
        self.said.append(Said(raw[0], raw[1], int.from_bytes(raw[2:], "little", signed=True), time.perf_counter()))
        return self.said[-1]

    def wait_for(self, kind: int, rank: int = 0) -> Said | None:
        """Hear until a process says something of this kind; None if it never does."""
        while (one := self.hear()) is not None and (one.kind, one.rank) != (kind, rank):
            pass
        return one

    def kill(self, rank: int = 0) -> None:
        os.kill(self.processes[rank], signal.SIGKILL)

    def end(self) -> None:
        """Wait for the processes to end; kill those that hang."""
        while self.hear() is not None:
            pass
        for rank in range(len(self.processes)) if self.hangs else ():
            self.kill(rank)
        self.statuses += [os.waitpid(process, 0)[1] for process in self.processes]
        self.processes.clear()

    def numbers(self, kind: int) -> list[int]:
        """The steps or ranks that were said with this kind."""
        return [one.number for one in self.said if one.kind == kind]

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *raised: object) -> None:
        for rank in range(len(self.processes)):
            self.kill(rank)
        self.end()
        os.close(self._pipe)


def _live(live: Callable[[int, Say], object], rank: int, tell: int) -> None:
    faulthandler.register(signal.SIGUSR1)
    live(rank, lambda kind, number: _say(tell, rank, kind, number))


def _say(tell: int, rank: int, kind: int, number: int) -> None:
    os.write(tell, bytes([rank, kind]) + number.to_bytes(8, "little", signed=True))


def first_save(directory: Path) -> None:
    """Save and resume once: what that imports, no life has to import again."""
    training = Training()
    training.go_to(0)
    with CheckpointManager(directory) as manager:
        manager.save(0, epoch=0, **training.objects)
        manager.resume(**training.objects)


def leftovers(directory: Path) -> list[str]:
    """The names of what dead saves and deletions left."""
    return [path.name for path in directory.iterdir() if path.name.startswith(HIDDEN)]


def instant(directory: Path) -> str:
    """What a kill interrupted, as the directory shows it."""
    left = leftovers(directory)
    if not left:
        return "before, between or after"
    if left[0].startswith((".trash-", ".old-")):
        return "an old checkpoint was being deleted"
    if (directory / left[0] / "manifest.json").exists():
        return "all was written, and had no name yet"
    return "files were being written" if any((directory / left[0]).iterdir()) else "nothing was written yet"


def arguments_of(module: str, description: str) -> argparse.ArgumentParser:
    """The options of every harness."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.training.{module}", description=description.split("\n")[0])
    parser.add_argument("--times", type=int, default=40, help="how many kills")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--folder", help="where to save; a temporary folder of the system otherwise")
    return parser
