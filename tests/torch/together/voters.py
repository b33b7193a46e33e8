"""Run a vote of several ranks.

`python voters.py SCENARIO:RANKS:ARGUMENT|ARGUMENT… …`: each scenario is a function of this file that every rank calls, with
one argument after the other. What each rank answers is printed as JSON, one line for each call; null stands for a rank that
was killed. Exit code 1 if a rank is still waiting after LIMIT seconds.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tests.ranks import on_ranks
from torch.distributed.tensor import distribute_tensor

import statedict
from statedict.state import Read, have_room, raw_values
from statedict.torch import Joint, RankConnections, vote
from statedict.torch.modules import _read_into

# Generous: a rank that waits for one that is gone would wait for 30 minutes.
LIMIT = 240
# Bytes of a message that is more than the system takes before it is received.
LARGE = 1 << 25


def succeed(rank: int, _: str) -> Any:
    """All succeed, three times in a row; each sends its rank."""
    return [vote(None, (number, rank)) for number in range(3)]


def fail(rank: int, failing: str) -> Any:
    """Some ranks fail, and then all succeed."""
    error = OSError(f"no file on {rank}") if str(rank) in failing else None
    return attempt(lambda: vote(error, rank)), attempt(lambda: vote(None, rank))


def some(rank: int, members: str) -> Any:
    """Only some of the ranks vote."""
    return vote(None, rank, list(map(int, members))) if str(rank) in members else None


def alone(rank: int, _: str) -> Any:
    """Each rank votes by itself."""
    return attempt(lambda: vote(None, rank, [rank])), attempt(lambda: vote(OSError("no file"), rank, [rank]))


def killed_at(rank: int, instant: str) -> Any:
    """One rank is killed before its n-th transfer; an object is two of them, its length and its bytes."""
    victim, number = map(int, instant.split("."))
    if rank == victim:
        signalled_at(number, signal.SIGKILL)
    return attempt(lambda: vote(None, rank))


def stopped_at(rank: int, instant: str) -> Any:
    """The same with connections for saves, and a rank that is stopped; what it answers when it goes on is of no interest."""
    victim, number = map(int, instant.split("."))
    processes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(processes, os.getpid())
    connections = RankConnections(timedelta(seconds=5))
    if rank == victim:
        signalled_at(number, signal.SIGSTOP)
    told = attempt(lambda: connections.agree(None, rank)), attempt(lambda: connections.agree(None, rank))
    # The others need these connections until they know.
    store = dist.distributed_c10d._get_default_store()
    store.add("told", 1)
    while store.add("told", 0) < len(processes) - 1:
        time.sleep(0.01)
    os.kill(processes[victim], signal.SIGKILL)
    return told


def signalled_at(number: int, which: signal.Signals) -> None:
    """Send this process a signal before its n-th transfer."""
    left = [number]

    def counting(act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if "tag" not in options:
                if not left[0]:
                    os.kill(os.getpid(), which)
                left[0] -= 1
            return act(*args, **options)

        return counted

    dist.isend, dist.irecv = counting(dist.isend), counting(dist.irecv)


def halfway(rank: int, instant: str) -> Any:
    """One rank ends in the middle of a large message that it sends or receives: half of its memory is not there."""
    victim, way, sender = instant.split(".")

    transfers = {"send": dist.isend, "recv": dist.irecv}

    def ending(tensor: torch.Tensor, peer: int, group: Any) -> Any:
        if tensor.numel() < LARGE:
            return transfers[way](tensor, peer, group)
        with tempfile.NamedTemporaryFile() as file:
            memory = np.memmap(file.name, dtype=np.uint8, mode="w+", shape=tensor.numel())
            os.truncate(file.name, LARGE // 4)
            # The system refuses the second half: here, or in gloo's thread, which then closes the connection.
            with suppress(RuntimeError):
                begun = transfers[way](torch.from_numpy(memory), peer, group)
                while begun is not None:
                    transfers["recv"](torch.empty(1), peer, group, tag=1)
                    time.sleep(0.01)
            die()

    if rank == int(victim):
        setattr(dist, f"i{way}", ending)
    told = attempt(lambda: [each[0] for each in vote(None, (rank, bytes(LARGE if rank == int(sender) else 1)))])
    if rank == int(victim):
        time.sleep(LIMIT)
    return told


def killed_after(rank: int, instant: str) -> Any:
    """One rank is killed so many microseconds after it began to vote, whatever it does then."""
    victim, delay = map(int, instant.split("."))
    if rank == victim:
        die_after(delay)
    told = attempt(lambda: vote(None, rank))
    if rank == victim:
        time.sleep(LIMIT)
    return told


def joint(rank: int, what: str) -> Any:
    """Rank 1 does something else inside a joint load than the others, which agree."""

    def load() -> Any:
        with Joint() as load:
            if rank == 1 and what == "raise":
                raise KeyError("weight")
            if rank == 1 and what == "interrupt":
                raise KeyboardInterrupt
            if rank == 1 and what == "leave":
                return "left"
            return load.agree(rank)

    return attempt(load)


def rows(rank: int, row: str) -> Any:
    """Each of three ranks reads 100 rows of a file, in which one row may be damaged, and the ranks verify them together."""
    data = [[(number * 100 * 400, (number + 1) * 100 * 400)] for number in range(3)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pt"
        tensor = torch.arange(300 * 100, dtype=torch.float32).reshape(300, 100)
        statedict.save({"weight": tensor}, path)
        if row:
            content = bytearray(path.read_bytes())
            content[content.index(tensor.numpy().tobytes()) + int(row) * 400] ^= 1
            path.write_bytes(content)

        def read() -> Any:
            with statedict.open(path) as checkpoint, Joint() as joint:
                storage = raw_values(checkpoint.state_dict())["weight"].storage
                joint.share([(storage, data)])
                into = bytearray(100 * 400)
                storage.source.read_into([Read(storage, data[rank][0][0], memoryview(into))])
                joint.agree()
                return torch.frombuffer(into, dtype=torch.float32)[0].item()

        told = attempt(read)
    return told if isinstance(told, float) else told.replace(str(directory), "")


class Sharded(torch.nn.Module):
    """Ordinary parameters beside a DTensor that is not saved: loading it is a joint load."""

    def __init__(self) -> None:
        super().__init__()
        self.large = torch.nn.Parameter(torch.zeros(300, 300))
        self.small = torch.nn.Parameter(torch.zeros(3))
        mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
        self.register_buffer("part", distribute_tensor(torch.ones(8), mesh), persistent=False)


class Hooked(Sharded):
    """Its loader changes it, so values are written before the last ones."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)


class Own(Sharded):
    """It has its own method for loading."""

    def load_state_dict(self, state: Any, strict: bool = True) -> Any:
        with torch.no_grad():
            self.large.copy_(state["large"])
            self.small.copy_(state["small"])
        return torch.nn.modules.module._IncompatibleKeys([], [])


def load(rank: int, what: str) -> Any:
    """Rank 1 fails to load a file, or is killed; the answer is the outcome, and the elements that the model then has."""
    way, failure = what.split(".")
    model = {"hooked": Hooked, "own": Own}.get(way, Sharded)()
    values = {"large": torch.ones(300, 300), "small": torch.ones(3)}
    torch.__future__.set_swap_module_params_on_conversion(way == "swap")
    _read_into.have_room = (lambda nbytes: False) if way == "scarce" else have_room
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pt"
        statedict.save(values, path)
        source: Any = values if way == "memory" else path
        if rank == 1:
            if failure == "damaged":
                data = bytearray(path.read_bytes())
                data[data.index(values["large"].numpy().tobytes()) + 100] ^= 1
                path.write_bytes(data)
            elif failure == "missing":
                source = Path(directory) / "y.pt"
            elif failure == "killed":
                die()
            elif failure == "refused":
                source = {"large": torch.ones(2), "small": torch.ones(3)}
        if failure.isdecimal():
            dist.barrier()
            if rank == 1:
                die_after(int(failure))
        options = {"assign": way == "assign", "dry_run": way == "dry"}
        told = attempt(lambda: repr(statedict.load_state_dict(model, source, **options)))
        if failure.isdecimal() and rank == 1:
            time.sleep(LIMIT)
        told = re.sub(r"/\S*/(?=[xy]\.pt)", "", told).partition("\n")[0]
    return told, sorted({value for parameter in model.parameters() for value in parameter.flatten().tolist()})


def attempt(act: Callable[[], Any]) -> Any:
    """What `act` returns, or the error that it raises, as text."""
    try:
        return act()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def die() -> None:
    """End this process as the system does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(microseconds: int) -> None:
    """End this process so much later, whatever it does then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(1, microseconds) / 1e6)


SCENARIOS = {
    each.__name__: each
    for each in (succeed, fail, some, alone, killed_at, stopped_at, halfway, killed_after, joint, load, rows)
}


def run(scenarios: Mapping[str, Callable[[int, str], Any]], *asked: str) -> None:
    """Print what each rank answers in each scenario, a line for each argument."""
    for each in asked:
        scenario, size, arguments = each.split(":")
        act = partial(_in_turn, scenarios[scenario], arguments.split("|"))
        ranks = on_ranks(int(size), act, losses=True, limit=LIMIT)
        for number in range(arguments.count("|") + 1):
            print(json.dumps([rank.answer and rank.answer[number] for rank in ranks]), flush=True)


def _in_turn(scenario: Callable[[int, str], Any], arguments: list[str], rank: int) -> list[Any]:
    told = []
    for argument in arguments:
        dist.barrier()
        told.append(scenario(rank, argument))
    return told


if __name__ == "__main__":
    run(SCENARIOS, *sys.argv[1:])
