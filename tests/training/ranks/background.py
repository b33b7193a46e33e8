"""Phases that save in the background."""

import os
import signal
import threading
import time
from datetime import timedelta
from functools import partial
from itertools import product
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.training.objects import Counter
from tests.training.ranks.trained import Fails, numbers, step, training, whole
from torch.distributed.fsdp import fully_shard

from statedict import CheckpointManager, last
from statedict.errors import StateDictError


def background(kind, size, directory):
    """Saves in the background: what happens meanwhile, and what is saved then."""
    model, optimizer = training(kind, size)
    step(model, optimizer, 0)
    saved, gate = numbers(model, optimizer), threading.Event()
    told = {}
    with CheckpointManager(directory, asynchronous=True, after_save=lambda saved: gate.wait()) as manager:
        manager.save(1, model=model, optimizer=optimizer, counter=Counter(dist.get_rank()))
        step(model, optimizer, 1)
        told["unfinished"] = manager._background.running
        total = torch.ones(1000)
        for _ in range(20):
            dist.all_reduce(total)
            total /= size
        told["collective"] = total.eq(1).all().item()
        gate.set()
        counter = Counter(-1)
        manager.resume(model=model, optimizer=optimizer, counter=counter)
        told["same"] = saved == numbers(model, optimizer)
        told["count"] = counter.count
        copies = []
        for number in (2, 3):
            manager.save(number, model=model, optimizer=optimizer)
            manager.wait()
            copies.append(
                [
                    tensor.data_ptr()
                    for copy in manager._saver._memory[0].copies.values()
                    for tensor in copy.memory.tensors
                ]
            )
        told["reused"] = copies[0] == copies[1]
    manager.save(4, counter=Counter())
    manager.close()
    told["steps"] = list(manager)
    return told


def _wait_for(gate, saved):
    gate.wait()


def replaces(kind, size, directory):
    """Waiting saves that one rank has replaced by newer ones before the others: what is saved."""
    rank, saved = dist.get_rank(), []
    for ahead in range(2):
        gate, run = threading.Event(), f"{directory}-{ahead}"
        after_save = partial(_wait_for, gate)
        with CheckpointManager(run, keep=last(9), asynchronous=True, busy="replace", after_save=after_save) as manager:
            manager.save(1, counter=Counter(1))
            while rank == 0 and not manager._after_save._thread:
                time.sleep(0.01)
            manager.save(2, counter=Counter(2))
            if rank == ahead:
                manager.save(3, counter=Counter(3))
            dist.barrier()
            gate.set()
            while rank != ahead and manager._background._waiting:
                time.sleep(0.01)
            if rank != ahead:
                manager.save(3, counter=Counter(3))
            manager.wait()
            manager.save(4, counter=Counter(4))
        dist.barrier()
        saved.append(list(manager))
    return saved


class Refuses(Counter):
    """An object of which rank 0 saves what cannot be loaded again."""

    def state_dict(self):
        return {"count": lambda: 0}


def one_fails(kind, size, directory):
    """Saves in the background that fail on one rank: when each rank is told, and what. The next saves work."""
    model, optimizer = training(kind, size)
    told = []

    def after_save(saved):
        if saved.step == 4:
            raise OSError("no upload")

    with CheckpointManager(directory, keep=last(9), asynchronous=True, after_save=after_save) as manager:
        both = {"model": model, "optimizer": optimizer}
        for number, objects in enumerate(({"model": Fails(2, 2)}, {"counter": Refuses()}, both, both), 1):
            manager.save(number, **objects)
            try:
                manager.wait()
            except (StateDictError, OSError) as error:
                told.append(f"{type(error).__name__}: {error}")
        manager.save(5 if dist.get_rank() else 6, model=model)
        try:
            manager.save(7, model=model)
        except StateDictError as error:
            told.append(f"{type(error).__name__}: {error}")
        manager.save(8, model=model)
    return {
        "told": told,
        "steps": list(manager),
        "left": [p.name for p in Path(directory).iterdir() if p.name[0] == "."],
    }


def failures(manager):
    """Save two steps; return what this rank is told about each that fails."""
    told = []
    for number in (2, 3):
        manager.save(number, counter=Counter(number))
        try:
            manager.wait()
        except StateDictError as error:
            told.append(f"{type(error).__name__}: {error}")
    return told


def hangs(victim, size, directory):
    """A rank is stopped between two saves: what each rank is told, within the manager's time limit."""
    rank, victim = dist.get_rank(), int(victim)
    processes = [None] * size
    dist.all_gather_object(processes, os.getpid())
    with CheckpointManager(directory, asynchronous=True, timeout=timedelta(seconds=6)) as manager:
        manager.save(1, counter=Counter(1))
        manager.wait()
        dist.barrier()
        if rank == victim:
            os.kill(os.getpid(), signal.SIGSTOP)
        if size > 2 and rank == 1:
            # The time limit of rank 2, which waits for rank 0, passes first.
            time.sleep(2)
        told = failures(manager)
        if rank == (victim + 1) % size:
            os.kill(processes[victim], signal.SIGCONT)
        # So the rank that was stopped still finds the connections of the others.
        dist.barrier()
    return {"told": told, "steps": list(manager)}


def silent(kind, size, directory):
    """A killed process has left half a record in the job's store: what each rank is told, within the time limit."""
    with CheckpointManager(directory, asynchronous=True, timeout=timedelta(seconds=2)) as manager:
        dist.barrier()
        if dist.get_rank() == 0:
            store = dist.distributed_c10d._get_default_store()
            while isinstance(store, dist.PrefixStore):
                store = store.underlying_store
            with open(store.path, "ab") as file:
                file.write(b"\x09\x00\x00\x00half")
        dist.barrier()
        told = failures(manager)
    return {"told": told, "steps": list(manager)}


def frozen(kind, size, directory):
    """A model with a large frozen part, saved three times, then changed: the files of the checkpoints, and the values."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.Linear(1024, 1024), torch.nn.Linear(1024, 4))
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    if kind == "fsdp":
        model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (size,)))
    elif kind == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(model)
    weight = next(model.parameters())
    with CheckpointManager(directory, keep=last(9), asynchronous=True) as manager:
        for number in range(4):
            if number == 3:
                with torch.no_grad():
                    weight += 1
            manager.save(number, model=model)
        manager.wait()
        files = [sorted(Path(directory, f"step-{step:010d}", "model").glob("*_1.distcp")) for step in manager]
        inodes = [[file.stat().st_ino for file in some] for some in files]
        before = whole(weight.detach()).clone()
        with torch.no_grad():
            weight.zero_()
        manager.resume(model=model)
        same = torch.equal(before, whole(weight.detach()))
        manager.prune(last(1))
        dist.barrier()
        resumed = manager.resume(model=model)
    return {"same": same, "after": resumed.step, "inodes": inodes}


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
    *(torch.bool, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


def _fill(tensor, seed):
    """Any bits: every kind of NaN, infinities, subnormal numbers."""
    top = 2 if tensor.dtype is torch.bool else 256
    size = (tensor.numel() * tensor.element_size(),)
    raw = torch.randint(top, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    tensor.copy_(raw.view(tensor.dtype).reshape(tensor.shape))


def _bytes(tensor):
    return tensor.detach().contiguous().flatten().view(torch.uint8).tolist()


def _local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def bits(kind, size, directory):
    """Tensors of every dtype, changed after each save: the names of those that DCP or a resume reads otherwise."""
    model = torch.nn.Module()
    for number, (dtype, shape) in enumerate(product(DTYPES, ((33, 7), (1,), (0, 3)))):
        tensor = torch.empty(shape, dtype=dtype)
        _fill(tensor, number)
        tensor = torch.nn.Parameter(tensor, requires_grad=dtype.is_floating_point)
        model.register_parameter(f"{number}", tensor)
    if kind == "fsdp":
        model = fully_shard(model, mesh=dist.device_mesh.init_device_mesh("cpu", (size,)))
    state = model.state_dict()
    with CheckpointManager(directory, asynchronous=True) as manager:
        for number in range(3):
            manager.save(number, model=model)
            saved = {name: _bytes(_local(tensor)) for name, tensor in state.items()}
            with torch.no_grad():
                for seed, tensor in enumerate(state.values()):
                    _fill(_local(tensor), 100 * number + seed)
        manager.wait()
        read = {name: torch.empty_like(tensor) for name, tensor in state.items()}
        dcp.load(read, checkpoint_id=f"{directory}/step-{number:010d}/model")
        manager.resume(model=model)
    found = {"dcp": read, "resume": state}
    return len(saved), {
        way: [name for name, tensor in tensors.items() if _bytes(_local(tensor)) != saved[name]]
        for way, tensors in found.items()
    }


def dies(kind, size, directory):
    """The last rank is killed during the first save, before, while or after it connects: what each other rank is told."""

    def end(*args, **kwargs):
        if kind == "connected":
            made(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    made, told = dist.new_group, []
    manager = CheckpointManager(directory, asynchronous=True, timeout=timedelta(seconds=10))
    if dist.get_rank() == size - 1:
        dist.new_group = end
        if kind == "before":
            end()
    for number in range(2):
        manager.save(number, counter=Counter())
        try:
            manager.wait()
        except StateDictError as error:
            told.append(f"{type(error).__name__}: {error}")
    manager.close()
    return {"told": told, "steps": list(manager)}


def leaves(kind, size, directory):
    """The job is shut down while one save is followed up and another waits: what each rank is told."""
    gate = threading.Event()
    wait = partial(_wait_for, gate)
    model, _ = training(kind, size)
    manager = CheckpointManager(directory, asynchronous=True, busy="replace", after_save=wait)
    manager.save(1, model=model)
    while dist.get_rank() == 0 and not manager._after_save._thread:
        time.sleep(0.01)
    dist.barrier()
    manager.save(2, model=model)
    dist.destroy_process_group()
    gate.set()
    try:
        manager.close()
    except StateDictError as error:
        told = f"{type(error).__name__}: {error}"
    return {"told": told, "steps": list(manager)}
