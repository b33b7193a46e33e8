"""How long an asynchronous save keeps training waiting: `python -m benchmarks.stall`.

For each case the state is copied in memory by one call of torch into memory that is there, and then saved by a
CheckpointManager; both in turn, while nothing is being written. The ratio is what an asynchronous save costs beside the
copying that it cannot do without. The first save, which has to get its memory from the system, is shown apart.
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
    """Seconds of the clock, and of this thread's processor, that something took."""

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
    """The tensors of a state, and what copying and saving them took, round by round."""
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
    """A model and an Adam whose state is there."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.is_floating_point()])
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    return {"model": model, "optimizer": optimizer}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stall", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="how often; the least of them counts")
    parser.add_argument("--size", choices=SIZES, default="full", help="as of the other benchmarks")
    parser.add_argument("--folder", help="where to write; a temporary folder of the system otherwise")
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
