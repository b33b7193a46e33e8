"""Measure what an asynchronous save costs training: `python -m benchmarks.stall`.

A table for each state shows how long a save keeps training waiting: one torch call copies the state into allocated memory,
and then each library saves it; all in turn, while no other save is running. The ratio compares the save with the copy, which
it cannot avoid: elapsed, and the processor time of the waiting thread, which depends less on what else the machine does. The
first save, which allocates its memory, is shown separately.

The last table shows how much slower the steps of a training are while a save is written, without the stalls: a loop of small
steps runs while nothing is written, while another process writes as many bytes with plain `write` and checksums (what the
bytes cost by themselves), and while saves follow each other without a pause. With `--ranks`, several processes train and
save together, and an all-reduce ends each step.

The others are `async_save` of torch.distributed.checkpoint and, if it is installed, torch_checkpointing, which copies into
shared memory and writes in another process. Each table is printed when it is complete. All of them take more than five
minutes on two cores, `--size quick` two; torch_checkpointing, which starts a process for each table and takes a millisecond
for each tensor, adds as much again.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from multiprocessing import get_context
from shutil import rmtree
from statistics import mean
from time import perf_counter, sleep, thread_time
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from rich.console import Console
from rich.table import Table

from statedict import CheckpointManager, last
from statedict.files import crc32
from statedict.state import tensors_of

from ._cases import SIZES, Size, many, mid

# Seconds that a training runs with each way to save.
SECONDS = {"tiny": 0.2, "quick": 5.0, "full": 10.0}
# Seconds after which a way to save is not measured again.
ENOUGH = 30.0
NUMBERS = count()


class Stall(NamedTuple):
    """Elapsed seconds, and processor seconds of this thread."""

    wall: float
    cpu: float


def timed(act: Callable[[], object]) -> Stall:
    start, used = perf_counter(), thread_time()
    act()
    used, elapsed = thread_time() - used, perf_counter() - start
    return Stall(elapsed, used)


def tensors(objects: dict[str, Any]) -> list[torch.Tensor]:
    """The live tensors of some objects."""
    return [tensor.detach() for value in objects.values() for tensor in tensors_of(value.state_dict())]


def with_optimizer(model: torch.nn.Module) -> dict[str, Any]:
    """Return a model and an Adam optimizer that has state."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.is_floating_point()])
    for parameter in model.parameters():
        # Not zero, which would make the parameters of half precision NaN: Adam's eps is 0 in it.
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


CASES: dict[str, Callable[[Size], dict[str, Any]]] = {
    "mid": lambda size: {"model": mid(size)},
    "mid, with Adam": lambda size: with_optimizer(mid(size)),
    "many": lambda size: {"model": many(size)},
}


class Saver(NamedTuple):
    """A way to save while a training runs.

    Attributes:
        save: starts a save, unless one is being written.
        is_writing: whether one is.
    """

    save: Callable[[], object]
    is_writing: Callable[[], bool]


ALWAYS = Saver(lambda: None, lambda: True)


@contextmanager
def nothing(objects: dict[str, Any], folder: str) -> Iterator[Saver]:
    yield ALWAYS


@contextmanager
def raw_writer(objects: dict[str, Any], folder: str) -> Iterator[Saver]:
    """Another process writes as many bytes, with their checksums, again and again."""
    nbytes = sum(tensor.nbytes for tensor in tensors(objects))
    process = get_context("fork").Process(target=_write_raw, args=(nbytes, f"{folder}/raw-{os.getpid()}"))
    process.start()
    try:
        yield ALWAYS
    finally:
        process.kill()
        process.join()


def _write_raw(nbytes: int, path: str) -> None:
    block = memoryview(os.urandom(1 << 20))
    while True:
        with open(path, "wb", buffering=0) as file:
            for start in range(0, nbytes, len(block)):
                piece = block[: nbytes - start]
                crc32(piece)
                file.write(piece)
        os.unlink(path)


@contextmanager
def ours(objects: dict[str, Any], folder: str) -> Iterator[Saver]:
    steps = count()
    with CheckpointManager(f"{folder}/run", keep=last(1), asynchronous=True, durable=False) as manager:
        running = manager._background

        def save() -> None:
            if not running.running:
                manager.save(next(steps), **objects)

        yield Saver(save, lambda: running.running)


@contextmanager
def torch_dcp(objects: dict[str, Any], folder: str) -> Iterator[Saver]:
    """`async_save` of torch.distributed.checkpoint, with a process group of its own."""
    group = dist.new_group(backend="gloo") if dist.is_initialized() else None
    futures: list[Any] = []

    def save() -> None:
        if not is_writing():
            state = {name: value.state_dict() for name, value in objects.items()}
            futures[:] = [dcp.async_save(state, checkpoint_id=f"{folder}/dcp", process_group=group)]

    def is_writing() -> bool:
        return bool(futures) and not futures[0].done()

    yield Saver(save, is_writing)
    for future in futures:
        future.result()


@contextmanager
def torch_checkpointing(objects: dict[str, Any], folder: str) -> Iterator[Saver]:
    """Saves of torch_checkpointing, as its guide recommends: training waits for the lock before it changes the state."""
    manager_of = import_module("torch_checkpointing").CheckpointManager
    config = manager_of.Config.with_async_save()
    # Its process imports torch; the default, 30 s, is not enough on a busy machine.
    config.save.process_config.subprocess_init_timeout_secs = 600
    # Its unaligned writes fail where O_DIRECT is supported; the others do not use it either.
    storage = import_module("torch_checkpointing.storage.filesystem")
    config.storage_config = storage.LocalFileSystemStorageConfig(use_direct_io=False)
    manager = manager_of(config)
    futures: list[Any] = []
    paths: list[str] = []

    def save() -> None:
        if not is_writing():
            state = {name: value.state_dict() for name, value in objects.items()}
            # It refuses to write where something is.
            paths.append(f"{folder}/torch_checkpointing/{next(NUMBERS)}")
            futures[:] = [manager.save(paths[-1], state)]
            with manager.lock():
                pass

    def is_writing() -> bool:
        if futures and not futures[0].done():
            return True
        while paths[1:]:
            rmtree(paths.pop(0), ignore_errors=True)
        return False

    yield Saver(save, is_writing)
    manager.close()


SAVERS = {"CheckpointManager": ours, "torch DCP, async_save": torch_dcp}
if find_spec("torch_checkpointing"):
    SAVERS["torch_checkpointing"] = torch_checkpointing
NOTHING, BYTES = "nobody", "another process, as many bytes"
WAYS = {NOTHING: nothing, BYTES: raw_writer, **SAVERS}


def measure(objects: dict[str, Any], folder: str, rounds: int) -> tuple[list[Stall], dict[str, list[Stall]]]:
    """The times to copy a state, and those to save it each way, round by round."""
    live = tensors(objects)
    memory = [torch.zeros_like(tensor) for tensor in live]
    copies: list[Stall] = []
    saves: dict[str, list[Stall]] = {name: [] for name in SAVERS}
    spent = torch.zeros(len(SAVERS))
    with ExitStack() as stack:
        savers = {name: stack.enter_context(way(objects, folder)) for name, way in SAVERS.items()}
        for _ in range(rounds):
            copies.append(timed(lambda: torch._foreach_copy_(memory, live)))
            if dist.is_initialized():
                dist.all_reduce(spent, op=dist.ReduceOp.MAX)
            for number, (name, saver) in enumerate(savers.items()):
                if spent[number] > ENOUGH and saves[name][1:]:
                    continue
                began = perf_counter()
                saves[name].append(timed(saver.save))
                while saver.is_writing():
                    sleep(0.002)
                spent[number] += perf_counter() - began
    return copies, saves


def stalls(name: str, size: Size, folder: str, rounds: int, ranks: int) -> Table:
    """The table of how long a save of one of the CASES keeps training waiting."""
    objects = CASES[name](size)
    live = tensors(objects)
    copies, saves = measure(objects, f"{folder}/{name}", rounds)
    copied = Stall(*map(min, zip(*copies)))
    title = f"{name}: {sum(tensor.nbytes for tensor in live) / 1e6:,.0f} MB, {len(live):,} tensors"
    title += f", {ranks} ranks, as rank 0 sees it" if ranks > 1 else ""
    table = Table("saved by", "waits, ms", "cpu, ms", "ratio", "ratio, cpu", "first save, ms", title=title)
    table.add_row("one copy", *(f"{1e3 * each:,.1f}" for each in copied), "", "", "")
    for way, found in saves.items():
        saved = Stall(*map(min, zip(*(found[1:] or found))))
        ratios = (f"{saved.wall / copied.wall:.2f}", f"{saved.cpu / copied.cpu:.2f}")
        table.add_row(way, *(f"{1e3 * each:,.1f}" for each in saved), *ratios, f"{found[0].wall * 1e3:,.1f}")
    return table


def train(saver: Saver, seconds: float, ranks: int) -> float:
    """Take steps of a small model for some seconds, and save all the time; the mean time of a step while one is written."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(12)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch, times = torch.randn(64, 256), []
    end, goes_on = perf_counter() + seconds, torch.ones(1)
    while goes_on or not times:
        saver.save()
        began = perf_counter()
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
        goes_on = torch.tensor([float(began < end)])
        if ranks > 1:
            dist.all_reduce(goes_on, op=dist.ReduceOp.MAX)
        if saver.is_writing():
            times.append(perf_counter() - began)
    return mean(times)


def slowdowns(size: Size, folder: str, seconds: float, rounds: int, ranks: int) -> Table:
    """The table of how much slower steps are while a save is written; the ways run in turn, and the fastest round counts."""
    objects = CASES["mid, with Adam"](size)
    steps: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in WAYS.items():
            with way(objects, folder) as saver:
                steps[name] = min(train(saver, seconds, ranks), steps.get(name, math.inf))
            if ranks > 1:
                dist.barrier()
    title = f"steps of {ranks} process{'es' if ranks > 1 else ''}, while a save is written"
    table = Table("written by", "step, ms", "slower by", "beyond the bytes", title=title)
    plain, raw = steps[NOTHING], steps[BYTES]
    for name, step in steps.items():
        table.add_row(name, f"{step * 1e3:.2f}", f"{step / plain - 1:.1%}", f"{step / raw - 1:.1%}")
    return table


def run(rank: int, ranks: int, asked: argparse.Namespace, folder: str) -> None:
    """Measure as one of the processes; rank 0 prints each table when it is complete."""
    warnings.simplefilter("ignore")
    size = SIZES[asked.size]
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
        torch.set_num_threads(1)
    console = Console(width=130, quiet=rank > 0)
    for name in CASES:
        console.print(stalls(name, size, folder, asked.rounds, ranks))
    console.print(slowdowns(size, folder, SECONDS[asked.size], min(asked.rounds, 3), ranks))
    if ranks > 1:
        dist.destroy_process_group()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="number of rounds; the smallest time counts")
    parser.add_argument("--size", choices=SIZES, default="full", help="as in the other benchmarks")
    parser.add_argument("--ranks", type=int, default=1, help="number of processes that train together")
    parser.add_argument("--folder", help="where to write (default: a temporary directory)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        if asked.ranks == 1:
            run(0, 1, asked, folder)
        else:
            torch.multiprocessing.spawn(run, (asked.ranks, asked, folder), nprocs=asked.ranks)


if __name__ == "__main__":
    main()
