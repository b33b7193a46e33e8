"""Measure one large file with a cold cache and under a memory limit: `python -m benchmarks.large --memory-limit 4.5`.

Each way runs in a process of its own, which has the model in memory and may use so much memory in total. The ways run in
turn, and each round begins with another one. The limits of the machine are measured in the same rounds: the disk's read with
16 requests at a time, past the page cache where the system allows that, and `write` with `fsync`. A way that needs more
memory than the limit is shown as such. The limit is RLIMIT_DATA, which every user can set: it counts the private memory of a
process, writable private mappings of files included, and not the page cache.
"""

from __future__ import annotations

import argparse
import math
import mmap
import os
import resource
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_model, save_file

import statedict
from statedict.files import spread

from ._cases import Flat

GIB, SMALL = 1 << 30, 1 << 20
DEPTH, REQUEST = 16, 1 << 20


class Job(NamedTuple):
    """A process: it takes the `way` in `folder` with `nbytes` of tensors, and may use `limit` bytes of memory (0: any)."""

    way: str
    folder: str
    nbytes: int
    limit: int
    cold: bool


def read_from_disk(path: str) -> None:
    """Read a file, DEPTH requests at a time, and keep nothing."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    try:
        # Page-aligned, as O_DIRECT requires.
        free = [mmap.mmap(-1, REQUEST) for _ in range(DEPTH)]

        def read(start: int) -> None:
            into = free.pop()
            os.preadv(fd, [into], start)
            free.append(into)

        spread(read, range(0, os.fstat(fd).st_size, REQUEST), DEPTH)
    finally:
        os.close(fd)


def write_and_sync(path: str, nbytes: int) -> None:
    piece = memoryview(os.urandom(4 << 20))
    with open(path, "wb", buffering=0) as file:
        for _ in range(nbytes // len(piece)):
            file.write(piece)
        os.fsync(file.fileno())


Way = Callable[[torch.nn.Module, str, str], object]
LOADS: dict[str, Way] = {
    "statedict": lambda model, file, _: statedict.load_state_dict(model, f"{file}.pt"),
    "statedict, unverified": lambda model, file, _: statedict.load_state_dict(model, f"{file}.pt", verify=False),
    "torch": lambda model, file, _: model.load_state_dict(torch.load(f"{file}.pt")),
    "torch, mapped": lambda model, file, _: model.load_state_dict(torch.load(f"{file}.pt", mmap=True)),
    "safetensors": lambda model, file, _: load_model(model, f"{file}.safetensors"),
    "limit: read, 16 at a time": lambda _, file, __: read_from_disk(f"{file}.pt"),
}
SAVES: dict[str, Way] = {
    "statedict, save": lambda model, _, scratch: statedict.save(model, scratch),
    "statedict, save, durable=False": lambda model, _, scratch: statedict.save(model, scratch, durable=False),
    "torch, save": lambda model, _, scratch: torch.save(model.state_dict(), scratch),
    "safetensors, save": lambda model, _, scratch: save_file(dict(model.state_dict()), scratch),
    "limit: write and fsync": lambda model, _, scratch: write_and_sync(
        scratch, sum(parameter.nbytes for parameter in model.parameters())
    ),
}
WAYS = LOADS | SAVES


def made(nbytes: int) -> torch.nn.Module:
    return Flat({f"weight{number}": torch.ones(nbytes // 256) for number in range(64)})


def write_files(job: Job, answer: Connection) -> None:
    for name, nbytes in (("state", job.nbytes), ("small", SMALL)):
        state = dict(made(nbytes).state_dict())
        torch.save(state, f"{job.folder}/{name}.pt")
        save_file(state, f"{job.folder}/{name}.safetensors")
    os.sync()
    answer.send((0.0, 0.0))


def act(job: Job, answer: Connection) -> None:
    """Run one way and send its elapsed and processor time; infinite if it needs more memory than it may use."""
    model, way = made(job.nbytes), WAYS[job.way]
    # Everything is imported before the time begins.
    way(made(SMALL), f"{job.folder}/small", f"{job.folder}/small-scratch")
    if job.cold:
        for path in Path(job.folder).iterdir():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if job.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (job.limit, job.limit))
    start, used = perf_counter(), process_time()
    try:
        way(model, f"{job.folder}/state", f"{job.folder}/scratch")
    except (MemoryError, OSError, RuntimeError) as error:
        if not job.limit:
            raise
        print(f"{job.way}: {error}")
        answer.send((math.inf, math.inf))
    else:
        answer.send((perf_counter() - start, process_time() - used))


def in_process(run: Callable[[Job, Connection], None], job: Job) -> tuple[float, float]:
    ours, theirs = (context := get_context("spawn")).Pipe()
    process = context.Process(target=run, args=(job, theirs))
    process.start()
    theirs.close()
    try:
        elapsed, used = ours.recv()
    finally:
        process.join()
    return elapsed, used


def measure(job: Job, ways: Sequence[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    in_process(write_files, job)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        first = number % len(ways)
        for way in [*ways][first:] + [*ways][:first]:
            times[way].append(in_process(act, job._replace(way=way)))
    return times


def table(times: dict[str, list[tuple[float, float]]], title: str) -> Table:
    shown = Table("way", "s", "× ours", "cpu, s", title=title)
    base = math.inf
    for way, found in times.items():
        elapsed, used = (median(column) for column in zip(*found))
        # Loads are compared with our load, saves with our save.
        base = elapsed if way in ("statedict", "statedict, save") else base
        cells = (
            ("does not fit", "", "")
            if math.isinf(elapsed)
            else (f"{elapsed:.2f}", f"{elapsed / base:.2f}", f"{used:.2f}")
        )
        shown.add_row(way, *cells)
    return shown


def main(arguments: Sequence[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    """Measure what the command line asks for, print the table, and return the times (elapsed, processor)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--gib", type=float, default=4, help="size of the file")
    parser.add_argument("--memory-limit", type=float, default=0, metavar="GIB", help="memory of each process")
    parser.add_argument("--warm", action="store_true", help="leave the files in the page cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", action="append", choices=WAYS, help="only this way (repeatable)")
    parser.add_argument("--folder", help="where to write (default: a temporary directory)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        job = Job("", folder, int(asked.gib * GIB), int(asked.memory_limit * GIB), not asked.warm)
        times = measure(job, asked.way or list(WAYS), asked.rounds)
    cache = "warm" if asked.warm else "cold"
    limit = f", {asked.memory_limit:g} GiB of memory" if asked.memory_limit else ""
    title = f"{asked.gib:g} GiB, {cache} cache{limit}; load of the machine {os.getloadavg()[0]:.1f}"
    Console().print(table(times, title))
    return times


if __name__ == "__main__":
    main()
