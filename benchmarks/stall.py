"""Measure how long training waits for an asynchronous save: `python -m benchmarks.stall`.

For each case, one torch call copies the state into allocated memory, and then a CheckpointManager saves it; both in turn,
while no other save is running. The ratio compares the asynchronous save with the copy, which it cannot avoid. The first
save, which allocates its memory, is shown separately.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from time import perf_counter, thread_time
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from statedict import CheckpointManager, last
from statedict.state import tensors_of

from ._cases import SIZES, many, mid


class Stall(NamedTuple):
    """Elapsed seconds, and processor seconds of this thread."""

    wall: float
    cpu: float


def timed(act: Callable[[], object]) -> Stall:
    start, used = perf_counter(), thread_time()
    act()
    used, elapsed = thread_time() - used, perf_counter() - start
    return Stall(elapsed, used)


def measure(
    objects: dict[str, object], folder: str | None, rounds: int
) -> tuple[list[torch.Tensor], list[Stall], list[Stall]]:
    """The tensors of a state, and the times to copy and to save them, round by round."""
    live = [tensor.detach() for value in objects.values() for tensor in tensors_of(value.state_dict())]  # type: ignore[attr-defined]
    memory = [torch.zeros_like(tensor) for tensor in live]
    copies, saves = [], []
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        CheckpointManager(place, keep=last(1), asynchronous=True, durable=False) as manager,
    ):
        for number in range(rounds):
            copies.append(timed(lambda: torch._foreach_copy_(memory, live)))
            saves.append(timed(lambda step=number: manager.save(step, **objects)))  # type: ignore[misc]
            manager.wait()
    return live, copies, saves


def with_optimizer(model: torch.nn.Module) -> dict[str, object]:
    """Return a model and an Adam optimizer that has state."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.is_floating_point()])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="number of rounds; the smallest time counts")
    parser.add_argument("--size", choices=SIZES, default="full", help="as in the other benchmarks")
    parser.add_argument("--folder", help="where to write (default: a temporary directory)")
    asked = parser.parse_args(arguments)
    size = SIZES[asked.size]
    cases: dict[str, Callable[[], dict[str, object]]] = {
        "mid": lambda: {"model": mid(size)},
        "mid, with Adam": lambda: with_optimizer(mid(size)),
        "many": lambda: {"model": many(size)},
    }
    table = Table("case", "MB", "tensors", "copy, ms", "save, ms", "ratio", "ratio, cpu", "first save, ms")
    for name, made in cases.items():
        tensors, copies, saves = measure(made(), asked.folder, asked.rounds)
        copied, saved = (Stall(*map(min, zip(*found))) for found in (copies, saves[1:] or saves))
        numbers = (copied.wall * 1e3, saved.wall * 1e3)
        ratios = (saved.wall / copied.wall, saved.cpu / copied.cpu)
        nbytes = sum(tensor.nbytes for tensor in tensors)
        cells = [
            f"{nbytes / 1e6:,.0f}",
            f"{len(tensors):,}",
            *(f"{n:,.1f}" for n in numbers),
            *(f"{r:.2f}" for r in ratios),
        ]
        table.add_row(name, *cells, f"{saves[0].wall * 1e3:,.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
