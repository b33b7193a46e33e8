"""Measure how a plain file gets into a sharded model: `python -m benchmarks.sharded`.

Several local processes (gloo) hold one FSDP2 model. A file with the whole state is loaded into it in two ways: by
`statedict.load_state_dict`, where each rank reads its own bytes, and by PyTorch's `set_model_state_dict`, where rank 0 reads
the file and broadcasts every tensor. The ways run in turn; time and memory are those of the slowest and the largest rank.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import spawn

import statedict

from ._measure import extra_memory

WIDTH = 2048


def model_of(megabytes: int) -> nn.Module:
    """Return a stack of linear layers of this size in total."""
    layer = WIDTH * WIDTH * 4
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(max(1, (megabytes << 20) // layer))))


def ways(model: nn.Module, path: str) -> dict[str, Callable[[], object]]:
    """Return the two ways to load the file."""

    def broadcast() -> None:
        full = torch.load(path, mmap=True, weights_only=True) if dist.get_rank() == 0 else {}
        set_model_state_dict(model, full, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))

    return {
        "statedict": lambda: statedict.load_state_dict(model, path),
        "torch: rank 0 reads, and broadcasts": broadcast,
    }


def run(rank: int, ranks: int, megabytes: int, rounds: int, folder: str) -> None:
    """Measure as one of the processes; rank 0 prints the table."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    path = f"{folder}/model.pt"
    if rank == 0:
        torch.manual_seed(0)
        torch.save(model_of(megabytes).state_dict(), path)
    dist.barrier()
    model = model_of(megabytes)
    fully_shard(model)
    measured: dict[str, tuple[float, int]] = {}
    acts = ways(model, path)
    memory = {name: _largest(extra_memory(act)) for name, act in acts.items()}
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds):
        for name, act in acts.items():
            dist.barrier()
            start = perf_counter()
            act()
            times[name].append(_largest(perf_counter() - start))
    measured = {name: (median(times[name]), memory[name]) for name in acts}
    if rank == 0:
        Console(width=100).print(_table(measured, ranks, os.path.getsize(path)))
    dist.destroy_process_group()


def _largest(value: Any) -> Any:
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return max(found)


def _table(measured: dict[str, tuple[float, int]], ranks: int, nbytes: int) -> Table:
    table = Table("way", title=f"{nbytes / 1e6:,.0f} MB into {ranks} ranks, {len(os.sched_getaffinity(0))} cores")
    for heading in ("ms", "× ours", "extra MB of a rank", "× ours"):
        table.add_column(heading, justify="right")
    ours = next(iter(measured.values()))
    for name, (seconds, extra) in measured.items():
        ratio = f"{extra / ours[1]:.2f}" if ours[1] else "-"
        table.add_row(name, f"{seconds * 1e3:,.0f}", f"{seconds / ours[0]:.2f}", f"{extra / 1e6:,.0f}", ratio)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharded", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ranks", type=int, default=4, help="number of processes")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the model")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; the median counts")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary directory)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        spawn(run, (asked.ranks, asked.megabytes, asked.rounds, folder), nprocs=asked.ranks)


if __name__ == "__main__":
    main()
