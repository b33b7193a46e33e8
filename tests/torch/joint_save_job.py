"""Saves by several ranks: functions that `modules/sharded_job` runs on each of them.

`python joint_save_job.py FOLDER RANKS FUNCTION …`, see there.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("modules")))

import sharded_job
import torch
import torch.distributed as dist
from sharded_job import Network, Plain, Two, expect, fully_shard, init_device_mesh, meshes, sharded_models
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import statedict
import statedict.errors
from statedict.files import System


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def alone(folder, act):
    """Call `act(folder)` on rank 0 only, and return what it has written, on every rank."""
    if dist.get_rank() == 0:
        folder.mkdir()
        act(folder)
    dist.barrier()
    found = content(folder)
    dist.barrier()
    return found


def compared(folder, whole, sharded, name, **options):
    """Whether all ranks write the bytes that one process writes for the whole tensors."""
    one = alone(folder / "one", lambda place: statedict.save(whole, place / name, **options))
    alone(folder / "all", lambda place: None)
    statedict.save(sharded, folder / "all" / name, **options)
    return content(folder / "all") == one


def table(folder, made):
    """Every mesh and placement, format, and number of files: the bytes that one process writes."""
    wrong, done = [], 0
    for how, kind, model in sharded_models(1):
        if how.startswith("[Replicate()] on 1"):
            continue
        for suffix in ("pt", "safetensors"):
            for size in (None, 3000):
                place = folder / f"table-{done}"
                if dist.get_rank() == 0:
                    place.mkdir()
                dist.barrier()
                plain = (Plain if kind == "plain" else Network)(1)
                if not compared(place, plain, model, f"m.{suffix}", max_shard_size=size):
                    wrong.append([how, suffix, size])
                dist.barrier()
                done += 1
    return {"wrong": wrong, "done": done}


def trees(folder, made):
    """Trees of modules, Parameters, ties, other objects, and values that differ from rank to rank: those of rank 0 count."""
    mesh = next(meshes())
    whole = torch.arange(70.0).reshape(14, 5)

    def tree(shard, rank):
        weight = torch.nn.Parameter(shard(whole))
        return {
            "weight": weight,
            "again": weight,
            "alias": weight.detach(),
            "model": Two(a=weight, b=torch.nn.Parameter(torch.ones(2))),
            "list": [shard(whole * 2), torch.full((3,), 7.0), (shard(whole.to(torch.int8)),)],
            "empty": shard(torch.zeros(0, 4)),
            "note": "x" * (rank + 1),
            "step": 10**rank,
            "large": torch.ones(100_000),
        }

    sharded = tree(lambda tensor: distribute_tensor(tensor, mesh, [Shard(0)]), dist.get_rank())
    place = folder / "trees"
    if dist.get_rank() == 0:
        place.mkdir()
    dist.barrier()
    expect(compared(place, tree(torch.clone, 0), sharded, "t.pt", metadata={"a": "b"}))
    loaded = statedict.load(place / "all" / "t.pt")
    expect(torch.equal(loaded["weight"], whole) and loaded["note"] == "x")
    return "done"


def part_of_mesh(folder, made):
    """A tensor on a part of the mesh, which the other parts have too, is written by the first; so is a replicated one."""
    if dist.get_world_size() < 4:
        return "done"
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    whole = torch.arange(96.0).reshape(8, 12)

    def pair(one, other):
        return {"one": one, "other": other}

    sharded = pair(
        distribute_tensor(whole, mesh["tp"], [Shard(1)]), distribute_tensor(whole, mesh, [Shard(0), Shard(0)])
    )
    place = folder / "part"
    if dist.get_rank() == 0:
        place.mkdir()
    dist.barrier()
    expect(compared(place, pair(whole, whole.clone()), sharded, "t.safetensors"))
    return "done"


def replicated(folder, made):
    """A model whose elements all are on this rank is saved by this rank alone, in any format and to a file object."""
    mesh = next(meshes())
    tensor = torch.arange(12.0).reshape(4, 3)
    state = {"a": distribute_tensor(tensor, mesh, [Replicate()])}
    if dist.get_rank() == 0:
        for suffix in ("pt", "safetensors", "npz"):
            statedict.save(state, folder / f"replicated.{suffix}")
            expect(torch.equal(statedict.load(folder / f"replicated.{suffix}")["a"], tensor))
        file = io.BytesIO()
        statedict.save(state, file, format="safetensors")
        file.seek(0)
        expect(torch.equal(statedict.load(file)["a"], tensor))
    return "done"


def raises(act):
    """The class and the text of the error, None without one."""
    try:
        act()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def refused(folder, made):
    """Errors on one rank are raised on all of them, name what is wrong, and leave the old file; nothing else is left."""
    rank, mesh = dist.get_rank(), next(meshes())
    model = fully_shard(Network(1), mesh=mesh)
    place = folder / "refused"
    old = alone(place, lambda place: [statedict.save({"a": torch.ones(1)}, place / f"m.{s}") for s in ("pt", "npz")])

    def attempt(obj, target, text, **options):
        found = raises(lambda: statedict.save(obj, target, **options))
        expect(found is not None and text in found[1], rank, found, text)
        expect(found[0] != "RankError" or "rank " in found[1], found)
        dist.barrier()
        expect(content(place) == old, rank, [*content(place)])
        dist.barrier()

    attempt(model, place / "m.npz", "'npz' cannot store a tensor that is sharded")
    attempt(model, io.BytesIO(), "a file object cannot receive a tensor that is sharded")
    attempt(model, "memory://m.pt", "cannot receive a tensor that is sharded")
    attempt({"a": model.up.weight, "b": print}, place / "m.pt", "b: builtins.print would run code")
    attempt({"a": model.up.weight, "b": 3}, place / "m.safetensors", "'b' is an int")
    attempt(model, place / "nowhere" / "m.pt", "No such file or directory to save in")
    other = Two(a=torch.ones(4, 2))
    attempt(other if rank else model, place / "m.pt", "rank 1 saves other sharded tensors than rank 0")
    partial = DTensor.from_local(torch.ones(4, 2), mesh, [Partial()], run_check=False)
    attempt({"model": {"a": partial}}, place / "m.pt", "model/a: its placement is [Partial of dp")
    full = System.write
    for failing in range(dist.get_world_size()):
        if rank == failing:
            System.write = lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "disk on fire"))
        text = "disk on fire" if rank == failing else f"rank {failing} failed: [Errno 5] disk on fire"
        attempt(model, place / "m.pt", text)
        attempt(model, place / "m.pt", text, max_shard_size=500)
        System.write = full
    opened = System.open
    if rank == 1:
        System.open = lambda self, path, *rest: opened(self, path + "-elsewhere", *rest)
    attempt(model, place / "m.pt", "processes that save together must share the file system")
    System.open = opened
    statedict.save(model, place / "m.pt")
    statedict.load_state_dict(model, place / "m.pt")
    return "done"


def own_bytes(folder, made):
    """A rank writes the bytes that it has, and nothing else but rank 0 the few others."""
    rank, mesh = dist.get_rank(), next(meshes())
    model = fully_shard(torch.nn.Linear(2048, 64 * dist.get_world_size(), bias=False), mesh=mesh)
    count = [0]
    write = System.write

    def counting(self, fd, buffers, offset):
        count[0] += sum(map(len, buffers))
        return write(self, fd, buffers, offset)

    System.write = counting
    statedict.save(model, folder / "own.safetensors")
    System.write = write
    mine = 64 * 2048 * 4
    expect(mine <= count[0] <= mine + (1000 if rank == 0 else 0), rank, count[0])
    return "done"


def killed(folder, made):
    """A rank whose process ends while it writes: the others raise an error that names it, and nothing is left behind."""
    return die(folder, dist.get_world_size() - 1)


def leader_killed(folder, made):
    return die(folder, 0)


def die(folder, victim):
    rank, mesh = dist.get_rank(), next(meshes())
    model = fully_shard(Network(1), mesh=mesh)
    place = folder / "killed"
    old = alone(place, lambda place: statedict.save({"a": torch.ones(1)}, place / "m.pt"))
    if rank == victim:
        System.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    found = raises(lambda: statedict.save(model, place / "m.pt"))
    expect(
        found is not None and found[0] == "RankError" and f"rank {victim} failed: its process" in found[1], rank, found
    )
    expect("has not called save" not in found[1], found)
    if rank == 0 or victim == 0:
        # The leader, if it lives, removes the file; another rank may have its error a moment before that.
        left = content(place)
        expect(left == old, rank, [*left])
    (folder / f"survived-{rank}").write_text("")
    os._exit(0)


def late(folder, made):
    """A rank that saves alone gets an error that says that all ranks must call save."""
    rank, count = dist.get_rank(), dist.get_world_size()
    dist.destroy_process_group()
    store = f"file://{folder / 'store-late'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=count, timeout=timedelta(seconds=5))
    model = fully_shard(Network(1), mesh=next(meshes()))
    if rank == 0:
        found = raises(lambda: statedict.save(model, folder / "late.pt"))
        ranks = ", ".join(map(str, range(dist.get_world_size())))
        expect(
            found[0] == "RankError" and f"by all ranks that hold parts of it ({ranks}), not by one" in found[1], found
        )
        expect(not list(folder.glob("*late.pt*")))
        (folder / "told").write_text(json.dumps(found))
    else:
        while not (folder / "told").exists():
            time.sleep(0.1)
    os._exit(0)


if __name__ == "__main__":
    sharded_job.main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:], known=globals())
