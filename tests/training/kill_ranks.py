"""Kills a random rank of a training at random instants of its saves, resumes all ranks each time, and tells what came of it.

    python -m tests.training.kill_ranks --times 500 --ranks 2
    python -m tests.training.kill_ranks --times 500 --ranks 4 --sharded

The ranks are real processes with real saves over gloo: asynchronous, durable, pruned, with optimizer, random state and a
frozen part. Each life of the training resumes what the one before left, compares every value of every rank with what that
step must have, and goes on. One rank is killed after a delay that is spread evenly over two saves; the others go on until a
save tells them of it. One kill in ten is in the life's first two saves, where the ranks first connect.

Exit code 1, and a line for each, where anything was not as it must be: what `tests.training.kill` says of one process, and
a rank that is not told, that is told another rank's name, or that does not end.
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
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch
import torch._dynamo  # every optimizer imports it when it is made: seconds, for each rank
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
from tests.training.kill import PATIENCE, Tally, Told, Training, first_save
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from statedict import CheckpointManager, last
from statedict.errors import RankError

RESUMED, BEGUN, DURABLE, WRONG, FAILED = range(5)
# How long a rank waits for the others: only where one of them ends before they have connected.
LIMIT = timedelta(seconds=15)


class ShardedTraining(Training):
    """The same with a sharded model; the frozen backbone is sharded, too."""

    def __init__(self) -> None:
        super().__init__()
        mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in self.model.values():
            fully_shard(layer, mesh=mesh)
        self.optimizer = torch.optim.Adam(self.model["head"].parameters())

    def go_to(self, step: int) -> None:
        torch.manual_seed(step)
        for parameter in self.model["head"].parameters():
            local(parameter.data).copy_(local(self.part(torch.randn(parameter.shape), parameter)))
            moments = {"exp_avg": torch.randn(parameter.shape), "exp_avg_sq": torch.rand(parameter.shape)}
            moments = {name: self.part(value, parameter) for name, value in moments.items()}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}

    @staticmethod
    def part(whole: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Said(NamedTuple):
    """What a rank tells of itself; `number` is a step, or the rank that it was told has failed (-1: none)."""

    rank: int
    kind: int
    number: int


def live(directory: Path, rank: int, size: int, meeting: Path, tell: int, *, sharded: bool) -> None:
    """One life of a rank: resume, compare, and save step after step until a save fails."""

    def say(kind: int, number: int) -> None:
        os.write(tell, bytes([rank, kind]) + number.to_bytes(8, "little", signed=True))

    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    kind = ShardedTraining if sharded else Training
    training, expected = kind(), kind()
    manager = CheckpointManager(directory, keep=last(2), asynchronous=True, timeout=LIMIT)
    resumed = manager.resume(**training.objects)
    step = -1 if resumed is None else resumed.step
    if resumed is not None:
        found = training.values()
        expected.go_to(step)
        torch.rand(rank)
        pairs = zip(found, expected.values(), strict=True)
        same = all(torch.equal(local(one), local(other)) for one, other in pairs)
        if not same or resumed.values != {"epoch": step} or resumed.passed_over:
            say(WRONG, step)
            return
    say(RESUMED, step)
    try:
        while True:
            step += 1
            training.go_to(step)
            # Each rank has its own random state.
            torch.rand(rank)
            say(BEGUN, step)
            manager.save(step, epoch=step, **training.objects)
            # It has waited for the save before it.
            say(DURABLE, step - 1)
    except RankError as error:
        say(FAILED, min(error.failed) if len(error.failed) == 1 else -1)


def forked(directory: Path, size: int, meeting: Path, *, sharded: bool) -> tuple[list[int], int]:
    """A life of all ranks: their processes, and the pipe on which they tell."""
    hear, tell = os.pipe()
    processes = []
    for rank in range(size):
        process = os.fork()
        if not process:
            try:
                live(directory, rank, size, meeting, tell, sharded=sharded)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        processes.append(process)
    os.close(tell)
    return processes, hear


def heard(pipe: int) -> Said | None:
    """The next thing that a rank says; None where all have ended."""
    if not select.select([pipe], [], [], PATIENCE)[0]:
        raise TimeoutError(f"nothing was heard for {PATIENCE} s: the training hangs")
    said = os.read(pipe, 10)
    return Said(said[0], said[1], int.from_bytes(said[2:], "little", signed=True)) if said else None


class Kill(NamedTuple):
    """The rank that is killed, and when: `delay` seconds after it first says `kind`."""

    victim: int
    kind: int
    delay: float


def drawn(chance: random.Random, size: int, long: float) -> Kill:
    """A kill of one of `size` ranks within two saves, each of which takes `long` seconds."""
    kind = BEGUN if chance.random() < 0.1 else DURABLE
    return Kill(chance.randrange(size), kind, chance.uniform(0, 2 * long))


def kill(directory: Path, size: int, asked: Kill, meeting: Path, *, sharded: bool) -> tuple[Told, float]:
    """Let a life resume, and kill one of its ranks; how long the others needed to end."""
    processes, pipe = forked(directory, size, meeting, sharded=sharded)
    said: list[Said] = []
    killed = False
    try:
        while (one := heard(pipe)) is not None:
            said.append(one)
            if not killed and one.kind == asked.kind and one.rank == asked.victim:
                time.sleep(asked.delay)
                os.kill(processes[asked.victim], signal.SIGKILL)
                killed, began = True, time.perf_counter()
    except TimeoutError as error:
        return Told(-1, -1, -1, -1, str(error)), 0.0
    finally:
        if len(said) == 0 or one is not None:
            for process in processes:
                os.kill(process, signal.SIGKILL)
        statuses = [os.waitpid(process, 0)[1] for process in processes]
        os.close(pipe)
    wrong = judged(said, statuses, size, asked.victim)
    ours = {kind: [each.number for each in said if each.kind == kind] for kind in (RESUMED, BEGUN, DURABLE)}
    resumed, begun, durable = (max(numbers, default=-1) for numbers in ours.values())
    if len(set(ours[RESUMED])) > 1:
        wrong = f"the ranks resumed from different steps: {ours[RESUMED]}"
    return Told(resumed, begun, durable, -1, wrong), time.perf_counter() - began if killed else 0.0


def judged(said: Sequence[Said], statuses: Sequence[int], size: int, victim: int) -> str:
    """What is wrong with what the ranks said, and how they ended."""
    if any(each.kind == WRONG for each in said):
        return f"the values of step {said[-1].number} are not those of that step"
    told = {each.rank: each.number for each in said if each.kind == FAILED}
    if told != dict.fromkeys(set(range(size)) - {victim}, victim):
        return f"rank {victim} was killed, and the others were told {told}; their statuses are {statuses}"
    return ""


def duration(directory: Path, size: int, folder: Path, *, sharded: bool, saves: int = 8) -> float:
    """How long a save takes here, in seconds: the median of some."""
    processes, pipe = forked(directory, size, folder / "measuring", sharded=sharded)
    begun = []
    while len(begun) <= saves and (said := heard(pipe)) is not None:
        begun += [time.perf_counter()] if said.kind == BEGUN and said.rank == 0 else []
    for process in processes:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    os.close(pipe)
    return sorted(later - one for one, later in pairwise(begun))[(saves - 1) // 2]


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.training.kill_ranks", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--times", type=int, default=20, help="how many kills")
    parser.add_argument("--ranks", type=int, default=2, help="how many processes")
    parser.add_argument("--sharded", action="store_true", help="the model is sharded (FSDP2), not replicated")
    parser.add_argument("--seed", type=int, default=0, help="of the instants and the ranks")
    parser.add_argument("--folder", help="where to save; a temporary folder of the system otherwise")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, tally, longest = random.Random(asked.seed), Tally(), {BEGUN: 0.0, DURABLE: 0.0}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        first_save(folder / "first")
        long = duration(folder / "measured", asked.ranks, folder, sharded=asked.sharded)
        run = folder / "run"
        run.mkdir()
        began = time.perf_counter()
        for number in range(1, asked.times + 1):
            one = drawn(chance, asked.ranks, long)
            told, needed = kill(run, asked.ranks, one, folder / f"meeting-{number}", sharded=asked.sharded)
            tally.add(run, number, told)
            longest[one.kind] = max(longest[one.kind], needed)
        each = (time.perf_counter() - began) / asked.times
    print(f"{asked.times:,} kills of {asked.ranks} ranks, {each * 1e3:.0f} ms each; a save takes {long * 1e3:.1f} ms")
    print(
        f"the others ended within {longest[DURABLE]:.1f} s, and {longest[BEGUN]:.1f} s after kills in the first saves"
    )
    print(tally.report())
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
