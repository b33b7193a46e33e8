"""Phases that save and resume: with other numbers of ranks, in structures, and with what does not fit or fails."""

from pathlib import Path

import torch
import torch.distributed as dist
from tests.training.objects import Counter
from tests.training.ranks.trained import Fails, numbers, step, training, whole

import statedict
from statedict import CheckpointManager, last
from statedict.errors import StateDictError


def save(kind, size, directory):
    """Three steps, each saved; then one more, for the comparison with those who resume."""
    model, optimizer = training(kind, size)
    with CheckpointManager(directory, keep=last(2), asynchronous=kind == "ddp") as manager:
        for number in range(3):
            step(model, optimizer, number)
            torch.manual_seed(1000 + dist.get_rank())
            objects = {"model": model, "optimizer": optimizer, "counter": Counter(number + dist.get_rank())}
            manager.save(number, metrics={"n": number}, epoch=number, pair=(1, 2), **objects)
        drawn = torch.rand(2).tolist()
        saved = numbers(model, optimizer)
        step(model, optimizer, 77)
        return {"saved": saved, "drawn": drawn, "next": numbers(model, optimizer)}


def resume(kind, size, directory):
    """Into objects that have gone elsewhere; then one more step."""
    model, optimizer = training(kind, size)
    step(model, optimizer, 100)
    counter = Counter(-1)
    with CheckpointManager(directory) as manager:
        resumed = manager.resume(model=model, optimizer=optimizer, counter=counter)
        drawn = torch.rand(2).tolist()
        found = numbers(model, optimizer)
        step(model, optimizer, 77)
        told = {"step": resumed.step, "metrics": dict(resumed.metrics), "values": dict(resumed.values)}
        told["reports"] = {name: [report.ok, report.loaded] for name, report in resumed.reports.items()}
        return told | {"saved": found, "drawn": drawn, "count": counter.count, "next": numbers(model, optimizer)}


def structure(kind, size, directory):
    """Models in a dict and optimizers in a list, saved by all ranks and resumed by them."""
    pairs = [training(kind, size) for _ in range(2)]
    for number, pair in enumerate(pairs):
        step(*pair, number)
    given = {"models": {"a": pairs[0][0], "b": pairs[1][0]}, "optimizers": [pair[1] for pair in pairs]}
    before = [numbers(*pair) for pair in pairs]
    with CheckpointManager(directory) as manager:
        manager.save(20, counts=(Counter(7), "x"), **given)
        for pair in pairs:
            step(*pair, 5)
        counter = Counter()
        resumed = manager.resume(counts=(counter, ""), **given)
        same = before == [numbers(*pair) for pair in pairs]
        return {"same": same, "count": counter.count, "values": resumed.values, "reports": list(resumed.reports)}


def fail(kind, size, directory):
    """A save that fails on one rank: what each rank is told, and that the next save works."""
    model, optimizer = training(kind, size)
    with CheckpointManager(directory, keep=last(5)) as manager:
        try:
            manager.save(10, model=Fails(2, 2))
        except (StateDictError, OSError) as error:
            told = str(error)
        left = sorted(path.name for path in Path(directory).iterdir())
        dist.barrier()
        manager.save(11, model=model, optimizer=optimizer)
        return {"told": told, "left": left}


def misfit(kind, size, directory):
    """A resume into a model that fits and those that do not: what was raised, and whether anything had changed."""
    model, _ = training(kind, size)
    before = [whole(p.detach()).tolist() for p in model.parameters()]
    told = []
    for other in (torch.nn.Linear(3, 3), torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 5))):
        try:
            with CheckpointManager(directory) as manager:
                manager.resume(model=other, counter=Counter())
        except StateDictError as error:
            told.append(f"{type(error).__name__}: {error}")
    same = before == [whole(p.detach()).tolist() for p in model.parameters()]
    resumed = manager.resume(model=model, options={"model": {"exclude": "1"}})
    return {"told": told, "same": same, "part": resumed.reports["model"].loaded}


def untrained(kind, size, directory):
    """An optimizer that has not taken a step: a save leaves it so, and a resume makes another one so."""
    model, optimizer = training(kind, size)
    with CheckpointManager(directory, random=False) as manager:
        manager.save(0, model=model, optimizer=optimizer)
        left = len(optimizer.state)
        try:
            manager.save(1, optimizer=optimizer)
        except ValueError as error:
            told = str(error)
        other = torch.optim.Adam(model.parameters(), lr=0.5)
        resumed = manager.resume(model=model, optimizer=other)
        return [left, len(other.state), other.param_groups[0]["lr"], resumed.reports["optimizer"].ok, told]


class Averaged(Counter):
    """An object that keeps a copy of a sharded model's state."""

    def __init__(self, model):
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def state_dict(self):
        return {"average": [self.state]}


def other_shards(kind, size, directory):
    """A save of an object with sharded tensors that is not a module: what each rank is told, and what is left."""
    model, _ = training(kind, size)
    with CheckpointManager(directory) as manager:
        try:
            manager.save(0, model=model, average=Averaged(model))
        except StateDictError as error:
            return [f"{type(error).__name__}: {error}", len(manager.checkpoints)]


class Breaks(Counter):
    """An object that rank 1 cannot load."""

    def load_state_dict(self, state):
        if dist.get_rank() == 1:
            raise OSError("no room here")
        super().load_state_dict(state)


def broken(kind, size, directory):
    """A resume that fails on one rank after all checks: what each rank is told. Then only rank 0 has a counter."""
    model, optimizer = training(kind, size)
    try:
        CheckpointManager(directory).resume(counter=Breaks(), model=model, optimizer=optimizer)
    except (StateDictError, OSError) as error:
        told = f"{type(error).__name__}: {error}"
    counter = Counter()
    mine = {"counter": counter} if dist.get_rank() == 0 else {}
    CheckpointManager(directory).resume(model=model, **mine)
    return {"told": told, "count": counter.count}


class Stage(torch.nn.Module):
    """A part of a model that only one rank has, and a part that all have; a hook renames a buffer."""

    def __init__(self, rank):
        super().__init__()
        self.add_module(f"stage{rank}", torch.nn.BatchNorm1d(2))
        self.all = torch.nn.BatchNorm1d(1)
        for norm in self.children():
            norm.running_mean.fill_(rank + 1)
        self._register_state_dict_hook(self._renamed)

    @staticmethod
    def _renamed(module, state, prefix, metadata):
        state[f"{prefix}before.deep"] = state.pop(f"{prefix}all.running_mean")


def stages(kind, size, directory):
    """The running means in a checkpoint of other parts on each rank; what is told of a value that differs in kind."""
    rank = dist.get_rank()
    model = torch.nn.parallel.DistributedDataParallel(Stage(rank), init_sync=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1) if rank else 0.1)
    with CheckpointManager(directory) as manager:
        manager.save(0, model=model)
        try:
            manager.save(1, model=model, optimizer=optimizer)
        except StateDictError as error:
            told = str(error)
    saved = statedict.load(manager.latest.path / "model")
    return {n: v.tolist() for n, v in saved.items() if "mean" in n or "deep" in n} | {"told": told}


def stage_of(model):
    """This rank's layers of a model, and their optimizer, whose second group has the biases."""
    rank, size = dist.get_rank(), dist.get_world_size()
    here = torch.nn.ModuleDict({name: layer for name, layer in model.named_children() if int(name) * size // 4 == rank})
    names = dict(here.named_parameters())
    groups = [[p for name, p in names.items() if name.endswith(kind)] for kind in ("weight", "bias")]
    return here, torch.optim.Adam([{"params": groups[0]}, {"params": groups[1], "lr": 0.5}], lr=0.1)


def refusal(act):
    """The error that a call raises, as text."""
    try:
        act()
    except StateDictError as error:
        return f"{type(error).__name__}: {error}"


def pipeline(kind, size, directory):
    """A pipeline: what was saved, asynchronously too, is resumed by its stages, and by one process with the whole model."""

    def made(count=4):
        return torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(count)))

    def facts(model, optimizer):
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        of = optimizer.state
        return {
            n: [p.tolist(), of[p]["exp_avg"].tolist(), rates[id(p)]] for n, p in model.named_parameters() if p in of
        }

    torch.manual_seed(dist.get_rank())
    model, optimizer = stage_of(made())
    with CheckpointManager(directory, keep=last(9), asynchronous=True) as manager:
        for number in range(3):
            for layer in model.values():
                layer(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            manager.save(number, model=model, optimizer=optimizer)
        saved = facts(model, optimizer)
        manager.wait()
        optimizer.param_groups[1]["lr"] += dist.get_rank()
        told = [refusal(lambda: (manager.save(9, model=model, optimizer=optimizer), manager.wait()))]
    with CheckpointManager(directory) as manager:
        other, theirs = stage_of(made())
        resumed = manager.resume(model=other, optimizer=theirs)
        told.append(refusal(lambda: manager.resume(model=stage_of(made(3))[0])))
    whole = made()
    alone = torch.optim.Adam([{"params": [p for p in whole.parameters() if p.dim() == n]} for n in (2, 1)])
    statedict.load_state_dict(whole, Path(directory), root="model")
    statedict.load_state_dict(alone, Path(directory), root="optimizer", model=whole)
    found = facts(whole, alone)
    same = [saved == facts(other, theirs), saved == {name: found[name] for name in saved}, len(found)]
    return {"same": same, "ok": [report.ok for report in resumed.reports.values()], "told": told}


def part(kind, size, directory):
    """One process, a changed head: every option of load_state_dict is there."""
    assert size == 1
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 5))
    resumed = CheckpointManager(directory).resume(model=model, options={"model": {"exclude": "1"}})
    return {"loaded": list(resumed.reports["model"].loaded), "weight": model[0].weight.flatten().tolist()}


def locked(kind, size, directory):
    """Another run holds the directory: every rank is told."""
    other = CheckpointManager(directory)
    if dist.get_rank() == 0:
        # In its `with` block, so that no newer manager of the process takes over.
        other.__enter__()
        other._ownership.hold()
    dist.barrier()
    try:
        CheckpointManager(directory).save(9, model=training(kind, size)[0])
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    dist.barrier()
    return {"told": told}
