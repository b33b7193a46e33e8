"""Scenarios of sharded loads in which something fails on one rank: `python joint_job.py SCENARIO:RANKS:ARGUMENT …`.

The answers of each scenario are printed as JSON, one line each, as `voters.py` does. The ranks share the working directory.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.torch.together.voters import LIMIT, attempt, die_after, run
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import statedict
from statedict.formats.many_files import _assemble
from statedict.state import have_room
from statedict.torch.modules import _read_into

ROWS, COLUMNS = 256, 384
PLACEMENTS: dict[str, Any] = {
    "rows": ([-1], [Shard(0)]),
    "columns": ([-1], [Shard(1)]),
    "whole": ([-1], [Replicate()]),
    "both": ([2, -1], [Shard(0), Shard(1)]),
    "replicas": ([2, -1], [Replicate(), Shard(0)]),
}


class Model(torch.nn.Module):
    """One large parameter, one that is too short for all ranks, and an ordinary buffer; all have one value."""

    def __init__(self, value: float, shape: tuple[int, int] = (ROWS, COLUMNS)) -> None:
        super().__init__()
        self.large = torch.nn.Parameter(torch.full(shape, value))
        self.short = torch.nn.Parameter(torch.full((1, 5), value))
        self.register_buffer("plain", torch.full((3,), value))


def sharded(how: str, value: float, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Model:
    model = Model(value, shape)
    if how == "fsdp":
        return fully_shard(model)  # type: ignore[return-value]
    sizes, placements = PLACEMENTS[how]
    sizes = [dist.get_world_size() // (2 if len(sizes) > 1 else 1) if size < 0 else size for size in sizes]
    mesh = dist.init_device_mesh("cpu", tuple(sizes))
    for name in ("large", "short"):
        made = distribute_tensor(getattr(model, name).detach(), mesh, placements)
        setattr(model, name, torch.nn.Parameter(made))
    return model


def held(model: torch.nn.Module) -> list[float]:
    """All distinct elements that this rank has."""
    with torch.no_grad():
        local = [t.to_local() if isinstance(t, DTensor) else t for t in model.state_dict().values()]
        return sorted({value for tensor in local for value in tensor.unique().tolist()})


def told(act: Any) -> str:
    return re.sub(r"/\S*/(?=new)", "", str(attempt(lambda: repr(act())))).partition("\n")[0]


def saved(suffix: str, shape: tuple[int, int] = (ROWS, COLUMNS)) -> Path:
    """A file or directory with ones for all elements; the chunks of a directory are those of row shards."""
    path = Path(f"new{suffix}").absolute()
    if suffix == ".dcp":
        with torch.no_grad():
            dcp.save(sharded("rows", 1.0, shape).state_dict(), checkpoint_id=path)
    elif dist.get_rank() == 0:
        statedict.save(Model(1.0, shape), path)
    dist.barrier()
    return path


def flipped(rank: int, what: str) -> Any:
    """In several ways, load a file in which one byte was changed: in the rows of each rank in turn, then in none."""
    paths = {suffix: saved(suffix) for suffix in (".pt", ".safetensors", ".npz", ".dcp")}
    return [
        refused(rank, paths[suffix], how, way) for suffix, how, way in (each.split(",") for each in what.split(";"))
    ]


def refused(rank: int, path: Path, how: str, way: str) -> Any:
    size, found = dist.get_world_size(), []
    _assemble.SMALL = 0 if way == "opened" else 1 << 20
    _read_into.have_room = (lambda nbytes: False) if way == "scarce" else have_room
    for victim in (*range(size), None):
        model = sharded(how, 0.0)
        if rank == 0 and victim is not None:
            flip(path, victim, size)
        dist.barrier()
        outcome = told(lambda: statedict.load_state_dict(model, path, assign=way == "assign"))  # noqa: B023
        found.append([outcome, held(model)])
        dist.barrier()
        if rank == 0 and victim is not None:
            flip(path, victim, size)
        dist.barrier()
    return found


def flip(path: Path, victim: int, size: int) -> None:
    """Change a bit in the middle of the rows that rank `victim` of `size` would have, or change it back."""
    run = torch.ones(ROWS // size, COLUMNS).numpy().tobytes()
    if path.is_dir():
        path, skip = path / f"__{victim}_0.distcp", 0
    else:
        skip = victim * len(run)
    data = bytearray(path.read_bytes())
    ones = torch.ones(COLUMNS).numpy().tobytes()
    at = min(place for place in (data.find(part) for part in (ones, damaged(ones))) if place >= 0)
    data[at + skip + len(run) // 2] ^= 1
    path.write_bytes(data)


def damaged(run: bytes) -> bytes:
    return bytes([run[0] ^ 1]) + run[1:]


def killed(rank: int, what: str) -> Any:
    """One rank is killed at a fraction of the time that a load takes, whatever it does then."""
    suffix, how, victim, fraction = what.split(",")
    shape = (2048, 512)
    path = saved(suffix, shape)
    model = sharded(how, 0.0, shape)
    statedict.load_state_dict(model, path)
    start = time.perf_counter()
    statedict.load_state_dict(model, path)
    spent = time.perf_counter() - start
    with torch.no_grad():
        for tensor in model.state_dict().values():
            (tensor.to_local() if isinstance(tensor, DTensor) else tensor).fill_(-0.5)
    dist.barrier()
    if rank == int(victim):
        die_after(int(spent * float(fraction) * 1e6))
    outcome = told(lambda: statedict.load_state_dict(model, path))
    if rank == int(victim):
        time.sleep(LIMIT)
    return outcome, held(model)


SCENARIOS = {each.__name__: each for each in (flipped, killed)}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        run(SCENARIOS, *sys.argv[1:])
