"""Kill a random rank of a training at random instants of its saves, and resume all ranks each time.

    python -m tests.training.kill_ranks --times 500 --ranks 2
    python -m tests.training.kill_ranks --times 500 --ranks 4 --sharded
    python -m tests.training.kill_ranks --times 500 --ranks 4 --store --faults 0.02

The ranks are real processes with real saves over gloo: asynchronous, durable, pruned, with optimizer, random state and a
frozen part; to a directory, or (`--store`) to an S3 server on this machine, some of whose requests fail. As under torchrun,
the ranks find each other through a store in a process that is not killed. Each life of the training resumes what the one
before left, compares every value of every rank with what that step must have, and goes on. One rank is killed after a delay
that is spread evenly over two saves; the others go on until a save tells them of it. One kill in ten is in the life's first
two saves, where the ranks first connect.

Exit code 1, and a line for each, if anything is wrong: a resume that fails, that is not from the last durable step or
later, or has other values; leftovers or checkpoints that pile up; a rank that is not told, that is told another rank's name,
or that does not end (its stacks are printed).
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

from tests.training.lives import Life, Say, Training, arguments_of, first_save, instant, leftovers, torch

import torch._dynamo  # isort: skip  # every optimizer imports it when it is made: seconds, for each rank
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict
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


class Job(NamedTuple):
    """A training: where it saves, how many ranks it has, and the port of the store through which they find each other."""

    run: str
    size: int
    sharded: bool
    port: int


LIVES = count()


def live(job: Job, life: int, rank: int, say: Say) -> None:
    """One life of a rank: resume, compare, and save step after step until a save fails."""
    store = dist.PrefixStore(f"life-{life}", dist.TCPStore("127.0.0.1", job.port, is_master=False))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=job.size)
    kind = ShardedTraining if job.sharded else Training
    training, expected = kind(), kind()
    manager = CheckpointManager(job.run, keep=last(2), asynchronous=True, timeout=LIMIT)
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


class Kill(NamedTuple):
    """The rank that is killed, and when: `delay` seconds after it first says `kind`."""

    victim: int
    kind: int
    delay: float


def drawn(chance: random.Random, size: int, long: float) -> Kill:
    """A kill of one of `size` ranks within two saves, each of which takes `long` seconds."""
    kind = BEGUN if chance.random() < 0.1 else DURABLE
    return Kill(chance.randrange(size), kind, chance.uniform(0, 2 * long))


def kill(job: Job, asked: Kill) -> tuple[Life, str, float]:
    """Let a life resume, and kill one of its ranks; what it said, what is wrong, and how long the others needed to end."""
    with Life(partial(live, job, next(LIVES)), job.size) as life:
        if life.wait_for(asked.kind, asked.victim) is not None:
            time.sleep(asked.delay)
            life.kill(asked.victim)
        began = time.perf_counter()
        life.end()
    return life, judged(life, asked.victim), time.perf_counter() - began


def judged(life: Life, victim: int) -> str:
    """What is wrong with what the ranks said, and how they ended."""
    if life.hangs:
        return "the others hang"
    if life.numbers(WRONG):
        return f"the values of step {life.numbers(WRONG)} are not those of that step"
    if len(set(life.numbers(RESUMED))) > 1:
        return f"the ranks resumed from different steps: {life.numbers(RESUMED)}"
    told = {one.rank: one.number for one in life.said if one.kind == FAILED}
    if told != dict.fromkeys(set(range(len(life.statuses))) - {victim}, victim):
        return f"rank {victim} was killed, and the others were told {told}; their statuses are {life.statuses}"
    return ""


class Tally:
    """The kills so far: where they hit, and everything that was wrong."""

    def __init__(self, job: Job) -> None:
        self.instants: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.resumed_newer = 0
        self._run = job.run
        self._begun = self._durable = -1
        # Lives in a row that were killed before a save of theirs had pruned: each may leave a checkpoint more.
        self._unpruned = 0

    def add(self, number: int, life: Life, wrong: str) -> None:
        """Compare one life with what the lives before it have reached, and what it has left with what may be there."""
        problems = [wrong] if wrong else []
        resumed, begun, durable = (max(life.numbers(kind), default=-1) for kind in (RESUMED, BEGUN, DURABLE))
        if not self._durable <= resumed <= max(self._begun, self._durable):
            problems.append(f"resumed from {resumed}; {self._durable} was durable, {self._begun} had begun")
        self._unpruned = 0 if durable > resumed else self._unpruned + 1
        steps, left = kept_in_store(self._run) if "://" in self._run else kept_in(Path(self._run))
        if len(left) > 1:
            problems.append(f"leftovers pile up: {left}")
        if steps > 4 + self._unpruned:
            problems.append(f"{steps} checkpoints pile up")
        self.wrong += [f"kill {number}: {text}" for text in problems]
        self.instants["in a store" if "://" in self._run else instant(Path(self._run))] += 1
        self.resumed_newer += resumed > self._durable
        self._durable = max(self._durable, resumed, durable)
        self._begun = begun

    def report(self) -> str:
        lines = [f"{count:6,}  {what}" for what, count in self.instants.most_common()]
        lines.append(f"{self.resumed_newer:6,}  resumed from a save that had ended unheard")
        return "\n".join([*lines, f"{len(self.wrong):6,}  wrong", *self.wrong])


def kept_in(directory: Path) -> tuple[int, list[str]]:
    """How many checkpoints there are, and the names of what dead saves left."""
    return len(list(directory.glob("step-*"))), leftovers(directory)


def kept_in_store(run: str) -> tuple[int, list[str]]:
    """The same of a store: the steps, and the further attempts (step/token) to write them."""
    bucket, _, prefix = run.removeprefix("s3://").partition("/")
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}?list-type=2&prefix={prefix}/step-"
    listed = ""
    while not listed.endswith("</ListBucketResult>"):
        # The server's faults are for these requests, too.
        with suppress(urllib.error.HTTPError), urllib.request.urlopen(url) as answer:
            listed = answer.read().decode().strip()
    keys = re.findall(rf"<Key>{prefix}/(step-\d+)/(\w+)/", listed)
    steps = {step for step, _ in keys}
    return len(steps), sorted("/".join(each) for each in set(keys))[len(steps) :]


def duration(job: Job, saves: int = 8) -> float:
    """How long a save takes here, in seconds: the median of some."""
    with Life(partial(live, job, next(LIVES)), job.size) as life:
        begun: list[float] = []
        while len(begun) <= saves and (said := life.wait_for(BEGUN)) is not None:
            begun.append(said.time)
    return sorted(later - one for one, later in pairwise(begun))[(saves - 1) // 2]


@contextmanager
def services(*, s3: bool, faults: float, seed: int) -> Iterator[int]:
    """A process that is not killed, with a TCPStore, whose port is returned, and an S3 server in this one's environment.

    `faults`: the share of requests that fail: "slow down", a response that is lost, a short body.
    """
    hear, tell = os.pipe()
    process = os.fork()
    if not process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        keys, url = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), ""
        if s3:
            url = _faulty_server(faults, random.Random(seed))
        os.write(tell, f"{keys.port} {url}".encode())
        while os.getppid() != 1:
            time.sleep(1)
        os._exit(0)
    port, url = os.read(hear, 100).decode().split(" ")
    if url:
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_REGION": "us-east-1",
        }
    try:
        yield int(port)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _faulty_server(faults: float, chance: random.Random) -> str:
    """Serve S3 with a bucket `bucket`; return the URL."""
    from tests.s3 import Server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server()
    server.reset()

    def fault(method: str, path: str) -> str | None:
        server.requests.clear()
        if chance.random() >= faults:
            return None
        # obstore does not repeat a list that was cut: such a save fails, as it should.
        is_object = method == "GET" and path != "/bucket"
        return chance.choice(["refuse", "lose", "cut"] if is_object else ["refuse", "lose"])

    server.fault = fault
    return server.url


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    parser = arguments_of("kill_ranks", __doc__ or "")
    parser.add_argument("--ranks", type=int, default=2, help="how many processes")
    parser.add_argument("--sharded", action="store_true", help="the model is sharded (FSDP2), not replicated")
    parser.add_argument("--store", action="store_true", help="save to an S3 server")
    parser.add_argument("--faults", type=float, default=0.0, help="the share of the server's requests that fail")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chance, longest = random.Random(asked.seed), {BEGUN: 0.0, DURABLE: 0.0}
    with (
        tempfile.TemporaryDirectory(dir=asked.folder) as folder,
        services(s3=asked.store, faults=asked.faults, seed=asked.seed) as port,
    ):
        first_save(Path(folder, "first"))
        Path(folder, "run").mkdir()
        where = "s3://bucket" if asked.store else folder
        job = Job(f"{where}/run", asked.ranks, asked.sharded, port)
        long = duration(job._replace(run=f"{where}/measured"))
        tally, began = Tally(job), time.perf_counter()
        for number in range(1, asked.times + 1):
            one = drawn(chance, asked.ranks, long)
            life, wrong, needed = kill(job, one)
            tally.add(number, life, wrong)
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
