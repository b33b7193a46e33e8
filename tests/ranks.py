"""Ranks of a job, forked from a process that has imported everything, so that a rank costs no import.

Tests start that process with `tests.forked`: pytest's own has threads, whose locks a forked process would inherit.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

# Before torch and NumPy are imported: a process that has threads is better not forked.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import torch.distributed as dist
from tests.forked import child


class Ended(NamedTuple):
    """How a rank ended: its exit code (-9: killed), and what its function returned, as JSON; None if it did not return."""

    code: int
    answer: Any


def on_ranks(size: int, act: Callable[[int], Any], *, losses: bool = False, limit: float = 900) -> list[Ended]:
    """Call `act(rank)` on each rank of a gloo group.

    Args:
        losses: whether ranks are lost, so that those that remain do not meet at the end.
        limit: seconds after which the ranks are killed and TimeoutError is raised.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ranks = [child(partial(_rank, rank, size, act, folder, losses)) for rank in range(size)]
        codes = _codes(ranks, limit)
        answers = [folder / f"{rank}.json" for rank in range(size)]
        return [
            Ended(code, json.loads(answer.read_text()) if answer.exists() else None)
            for code, answer in zip(codes, answers, strict=True)
        ]


def answers(size: int, act: Callable[[int], Any]) -> list[Any]:
    """Return what `act(rank)` returned on each rank, all of which must succeed."""
    ended = on_ranks(size, act)
    if any(rank.code for rank in ended):
        raise SystemExit(f"the ranks ended with {[rank.code for rank in ended]}")
    return [rank.answer for rank in ended]


def _rank(rank: int, size: int, act: Callable[[int], Any], folder: Path, losses: bool) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=size)
    dist.barrier()
    text = json.dumps(act(rank))
    # A rank may be killed while it writes.
    (folder / f"{rank}.part").write_text(text)
    (folder / f"{rank}.part").rename(folder / f"{rank}.json")
    if not losses:
        dist.barrier()
        dist.destroy_process_group()


def _codes(ranks: list[int], limit: float) -> list[int]:
    """Wait for the ranks; return their exit codes."""
    codes: dict[int, int] = {}
    end = time.monotonic() + limit
    while len(codes) < len(ranks) and time.monotonic() < end:
        for rank in set(ranks) - set(codes):
            ended, status = os.waitpid(rank, os.WNOHANG)
            if ended:
                codes[rank] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    late = [rank for rank in ranks if rank not in codes]
    for rank in late:
        os.kill(rank, signal.SIGKILL)
        os.waitpid(rank, 0)
    if late:
        raise TimeoutError(f"{len(late)} of {len(ranks)} ranks still run after {limit} s")
    return [codes[rank] for rank in ranks]
