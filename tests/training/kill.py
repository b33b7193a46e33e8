"""Kills a training process at random instants of its saves, resumes it each time, and tells what came of it.

    python -m tests.training.kill --times 500
    python -m tests.training.kill --times 500 --asynchronous

What is killed is a real process with real saves: durable, pruned, with optimizer, random state and a shared shard. It is
forked from one that has imported everything, so that a kill costs a tenth of a second instead of the seconds that importing
torch takes. Each life of the training resumes what the one before left, compares every value with what that step must have,
and goes on; it is killed after a delay that is spread evenly over two saves as long as they take here.

Exit code 1, and a line for each, where anything was not as it must be: a resume that fails, that is not from the last
durable step or later, or has other values; leftovers of dead saves that pile up; a pinned step that is gone or damaged.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

# Before torch and NumPy are imported: a process that has threads is better not forked.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch

from statedict import CheckpointManager, last

RESUMED, BEGUN, DURABLE, WRONG, PINNED = range(5)
HIDDEN = (".saving-", ".trash-", ".old-")
# A life in which nothing is said for so long hangs.
PATIENCE = 60.0


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
    """What a life tells of itself, and when it was heard."""

    kind: int
    step: int
    time: float


class Told(NamedTuple):
    """A life's steps that it resumed, had begun, knew to be durable, and pinned (-1: none); what was wrong."""

    resumed: int
    begun: int
    durable: int
    pinned: int
    wrong: str


def live(directory: Path, tell: int, *, asynchronous: bool, again: bool) -> None:
    """One life: resume, compare, and save step after step until killed; `again`: the resumed step is pinned, and saved once
    more."""

    def say(kind: int, step: int) -> None:
        os.write(tell, kind.to_bytes(1, "little") + step.to_bytes(8, "little", signed=True))

    training, expected = Training(), Training()
    manager = CheckpointManager(directory, keep=last(2), asynchronous=asynchronous)
    resumed = manager.resume(**training.objects)
    step = -1 if resumed is None else resumed.step
    if resumed is not None:
        found = training.values()
        expected.go_to(step)
        same = all(torch.equal(a, b) for a, b in zip(found, expected.values(), strict=True))
        if not same or resumed.values != {"epoch": step} or resumed.passed_over:
            say(WRONG, step)
            return
    say(RESUMED, step)
    if again and resumed is not None:
        manager.pin(step)
        say(PINNED, step)
    else:
        step += 1
    while True:
        training.go_to(step)
        say(BEGUN, step)
        manager.save(step, epoch=step, **training.objects)
        # An asynchronous save has waited for the one before it.
        say(DURABLE, step - 1 if asynchronous else step)
        step += 1


def forked(directory: Path, *, asynchronous: bool, again: bool) -> tuple[int, int]:
    """A life in a child: its process, and the pipe on which it tells."""
    hear, tell = os.pipe()
    process = os.fork()
    if not process:
        try:
            live(directory, tell, asynchronous=asynchronous, again=again)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(tell)
    return process, hear


def heard(pipe: int) -> Said | None:
    """The next thing that a life says; None where it has ended."""
    if not select.select([pipe], [], [], PATIENCE)[0]:
        raise TimeoutError(f"nothing was heard for {PATIENCE} s: the training hangs")
    said = os.read(pipe, 9)
    return Said(said[0], int.from_bytes(said[1:], "little", signed=True), time.perf_counter()) if said else None


def kill(directory: Path, delay: float, *, asynchronous: bool, again: bool) -> Told:
    """Let a life resume, kill it `delay` seconds after its first save began, and tell what it had come to."""
    process, pipe = forked(directory, asynchronous=asynchronous, again=again)
    said: list[Said] = []
    try:
        while (one := heard(pipe)) is not None and one.kind != BEGUN:
            said.append(one)
        if one is not None:
            said.append(one)
            time.sleep(max(0.0, one.time + delay - time.perf_counter()))
    finally:
        os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
    while (one := heard(pipe)) is not None:
        said.append(one)
    os.close(pipe)
    wrong = "" if os.WIFSIGNALED(status) else "it ended by itself"
    if any(one.kind == WRONG for one in said):
        wrong = f"the values of step {said[-1].step} are not those of that step"
    return Told(
        *(max((s.step for s in said if s.kind == k), default=-1) for k in (RESUMED, BEGUN, DURABLE, PINNED)), wrong
    )


def first_save(directory: Path) -> None:
    """Save and resume once: what that imports, no life has to import again."""
    training = Training()
    training.go_to(0)
    with CheckpointManager(directory) as manager:
        manager.save(0, epoch=0, **training.objects)
        manager.resume(**training.objects)


def duration(directory: Path, *, asynchronous: bool, saves: int = 12) -> float:
    """How long a save takes here, in seconds: the median of some, or a life's first if they take longer."""
    process, pipe = forked(directory, asynchronous=asynchronous, again=False)
    begun: list[float] = []
    try:
        while len(begun) <= saves and (said := heard(pipe)) is not None:
            begun += [said.time] if said.kind == BEGUN else []
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(pipe)
    gaps = [later - one for one, later in pairwise(begun)]
    return max(sorted(gaps)[saves // 2], *gaps[:3])


def leftovers(directory: Path) -> list[Path]:
    """What dead saves and deletions left."""
    return [path for path in directory.iterdir() if path.name.startswith(HIDDEN)]


def instant(directory: Path) -> str:
    """What the kill interrupted, as the directory shows it."""
    left = leftovers(directory)
    if not left:
        return "before, between or after"
    if left[0].name.startswith((".trash-", ".old-")):
        return "an old checkpoint was being deleted"
    if (left[0] / "manifest.json").exists():
        return "all was written, and had no name yet"
    return "files were being written" if any(left[0].iterdir()) else "nothing was written yet"


class Tally:
    """The kills so far: where they hit, and everything that was wrong."""

    def __init__(self) -> None:
        self.instants: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.begun = self.durable = -1
        self.resumed_newer = 0
        self.pinned: set[int] = set()
        # Lives in a row that were killed before a save of theirs had pruned: each may leave a checkpoint more.
        self.unpruned = 0

    def add(self, directory: Path, number: int, told: Told) -> None:
        """Judge one life by what the lives before it had come to, and what it left by what may be there."""
        wrong = [told.wrong] if told.wrong else []
        if not self.durable <= told.resumed <= max(self.begun, self.durable):
            wrong.append(f"resumed from {told.resumed}; {self.durable} was durable, {self.begun} had begun")
        left = leftovers(directory)
        if len(left) > 1:
            wrong.append(f"leftovers pile up: {[path.name for path in left]}")
        self.unpruned = 0 if told.durable > told.resumed else self.unpruned + 1
        self.pinned |= {told.pinned} - {-1}
        gone = [step for step in self.pinned if not (directory / f"step-{step:010d}").is_dir()]
        if gone:
            wrong.append(f"pinned steps are gone: {gone}")
        if len(list(directory.glob("step-*"))) > 4 + self.unpruned + len(self.pinned):
            wrong.append("checkpoints pile up")
        self.wrong += [f"kill {number}: {text}" for text in wrong]
        self.instants[instant(directory)] += 1
        self.resumed_newer += told.resumed > self.durable
        self.durable = max(self.durable, told.resumed, told.durable)
        self.begun = told.begun

    def report(self) -> str:
        lines = [f"{count:6,}  {what}" for what, count in self.instants.most_common()]
        lines.append(f"{self.resumed_newer:6,}  resumed from a save that had ended unheard")
        return "\n".join([*lines, f"{len(self.wrong):6,}  wrong", *self.wrong])


def clean(directory: Path, durable: int, pinned: set[int], *, asynchronous: bool) -> list[str]:
    """Resume and save once more without a kill: what is wrong with the directory then; `durable`: the last step known to
    be (-1: none); `pinned`: those that must be there."""
    training = Training()
    with CheckpointManager(directory, keep=last(2), asynchronous=asynchronous) as manager:
        resumed = manager.resume(**training.objects)
        if resumed is None and durable >= 0:
            return ["nothing is left to resume from"]
        step = 0 if resumed is None else resumed.step + 1
        manager.save(step, epoch=step, **training.objects)
        manager.wait()
        wrong = [] if pinned <= set(manager) else ["pinned steps are gone"]
        wrong += [
            f"pinned step {step} is not itself" for step in pinned if manager.resume(at=step).values != {"epoch": step}
        ]
    names = sorted(path.name for path in directory.iterdir() if not path.name.startswith("step-"))
    return wrong + ([] if set(names) <= {".lock", ".pins"} else [f"a save left {names}"])


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.training.kill", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--times", type=int, default=40, help="how many kills")
    parser.add_argument("--asynchronous", action="store_true", help="a thread saves while training goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--folder", help="where to save; a temporary folder of the system otherwise")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, tally = random.Random(asked.seed), Tally()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        first_save(Path(folder, "first"))
        long = duration(Path(folder, "measured"), asynchronous=asked.asynchronous)
        run = Path(folder, "run")
        run.mkdir()
        began = time.perf_counter()
        for number in range(1, asked.times + 1):
            delay, again = chance.uniform(0, 2 * long), chance.random() < 0.2
            tally.add(run, number, kill(run, delay, asynchronous=asked.asynchronous, again=again))
        each = (time.perf_counter() - began) / asked.times
        tally.wrong += clean(run, tally.durable, tally.pinned, asynchronous=asked.asynchronous)
    print(f"{asked.times:,} kills, {each * 1e3:.0f} ms each; a save takes {long * 1e3:.1f} ms")
    print(tally.report())
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
