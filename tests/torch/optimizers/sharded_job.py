"""Runs functions of this file on several ranks, as `modules/sharded_job` does; prints what all ranks return for each."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.torch.modules.sharded_job import Counting, main
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import statedict
import statedict.files
from statedict.errors import LoadError, StateDictError


class Network(torch.nn.Module):
    """Two layers with uneven shards, a scale of no dimensions, and a layer that is not trained."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up = torch.nn.Linear(8, 16)
        self.down = torch.nn.Linear(16, 5)
        self.fixed = torch.nn.Linear(5, 3).requires_grad_(False)

    def forward(self, x):
        return self.fixed(self.down(self.up(x)))


class Factored(torch.optim.Optimizer):
    """An optimizer with state of another shape than the parameter's, and a number under a name of its own."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    shape = (*parameter.shape[:-1], 1)
                    state["rows"] = parameter.new_zeros(shape)
                    state["times"] = torch.zeros(())
                    state["nested"] = {"moments": [torch.zeros_like(parameter)]}
                state["times"] += 1
                state["rows"].mul_(0.5).add_(parameter.grad.square().mean(-1, keepdim=True))
                state["nested"]["moments"][0].mul_(0.9).add_(parameter.grad)
                parameter.sub_(group["lr"] * state["nested"]["moments"][0] / (state["rows"] + 1))


KINDS = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.1),
    "adamw foreach": lambda params: torch.optim.AdamW(params, lr=0.1, foreach=True, amsgrad=True),
    "adamw one by one": lambda params: torch.optim.AdamW(params, lr=0.1, foreach=False, fused=False),
    "adamw fused": lambda params: torch.optim.AdamW(params, lr=0.1, fused=True),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
    "factored": Factored,
}
PLAN = {"up": ColwiseParallel(), "down": RowwiseParallel()}


def step(model, optimizer, seed):
    torch.manual_seed(seed)
    optimizer.zero_grad()
    model(torch.randn(4, 8)).square().mean().backward()
    optimizer.step()


def trained(kind, model=None):
    """A model and its optimizer after two steps; matrices and vectors are in groups of their own."""
    model = model or Network()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    optimizer = KINDS[kind]([{"params": matrices}, {"params": vectors, "lr": 0.05}])
    return model, optimizer


def sharded_models():
    """The network sharded in all ways that this number of ranks has, with a name for each."""
    count = dist.get_world_size()
    yield "fsdp", fully_shard(Network(), mesh=init_device_mesh("cpu", (count,)))
    if count == 2:
        yield "tp", parallelize_module(Network(), init_device_mesh("cpu", (count,)), PLAN)
    else:
        mesh = init_device_mesh("cpu", (2, count // 2), mesh_dim_names=("dp", "tp"))
        network = parallelize_module(Network(), mesh["tp"], PLAN)
        fully_shard(network.up, mesh=mesh["dp"])
        yield "fsdp and tp", fully_shard(network, mesh=mesh["dp"])


def files(folder):
    """For each kind: the model's state, the optimizer, and files of its state by number, by name, and of torch's."""
    made = {}
    for kind in KINDS:
        model, optimizer = trained(kind)
        for seed in range(2):
            step(model, optimizer, seed)
        place = folder / kind.replace(" ", "-")
        paths = [place.with_suffix(suffix) for suffix in (".index.pt", ".named.pt", ".dcp")]
        torch.save(optimizer.state_dict(), paths[0])
        statedict.save(statedict.state_dict(optimizer, model=model), paths[1])
        if kind != "factored":
            dcp.save(get_optimizer_state_dict(model, optimizer), checkpoint_id=paths[2], no_dist=True)
        made[kind] = model, optimizer, [path for path in paths if path.exists()]
    return made


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def leaves(state):
    """The tensors of a parameter's state by name, whole."""
    found = {}
    for key, value in state.items():
        inner = value["moments"][0] if key == "nested" else value
        found[key] = whole(inner) if isinstance(inner, torch.Tensor) else inner
    return found


def contents(model, optimizer):
    """Parameters, state and options, as whole tensors."""
    state = {name: leaves(optimizer.state[p]) for name, p in model.named_parameters() if p in optimizer.state}
    # PyTorch's own load makes lists of tuples.
    options = [
        {k: list(v) if k == "betas" else v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    return {"model": {n: whole(p.detach()) for n, p in model.named_parameters()}, "state": state, "options": options}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def kinds_of(optimizer):
    """Whether each tensor of the state is sharded, and how."""
    return [
        {
            key: str(value.placements) if isinstance(value, DTensor) else type(value).__name__
            for key, value in each.items()
        }
        for each in optimizer.state.values()
    ]


def oracle(kind, model, plain, plain_model):
    """PyTorch's own way: the whole state is made, and each rank takes its part; a copy, because it keeps the step counts."""
    optimizer = trained(kind, model)[1]
    full = copy.deepcopy(get_optimizer_state_dict(plain_model, plain))
    set_optimizer_state_dict(model, optimizer, full, options=StateDictOptions(full_state_dict=True))
    return optimizer


def table(folder, made):
    """Every file into every sharded optimizer, fresh or not: training continues as after PyTorch's own load, bit by bit."""
    wrong, done = [], 0
    for kind, (plain_model, plain, paths) in made.items():
        for number in range(2):
            (how, expected_model), *_ = list(sharded_models())[number:]
            statedict.load_state_dict(expected_model, plain_model)
            expected = None
            if kind != "factored":
                optimizer = oracle(kind, expected_model, plain, plain_model)
                step(expected_model, optimizer, 7)
                expected = contents(expected_model, optimizer), kinds_of(optimizer)
            for path in paths:
                _, model = list(sharded_models())[number]
                optimizer = trained(kind, model)[1]
                if path.suffix == ".dcp":
                    step(model, optimizer, 100)
                statedict.load_state_dict(model, plain_model)
                report = statedict.load_state_dict(optimizer, path, model=model)
                loaded = contents(model, optimizer)
                good = same(loaded["state"], contents(plain_model, plain)["state"]) and report.ok
                step(model, optimizer, 7)
                if expected is not None:
                    good = good and same(contents(model, optimizer), expected[0]) and kinds_of(optimizer) == expected[1]
                if not good:
                    wrong.append([kind, how, path.name, str(report), kinds_of(optimizer), expected and expected[1]])
                done += 1
    return {"wrong": wrong, "done": done}


def back(folder, made):
    """The state of a sharded optimizer has the names of its model, is loaded again, and goes to a file for one process."""
    answers = {}
    for kind in ("adamw", "sgd"):
        _, model = next(sharded_models())
        optimizer = trained(kind, model)[1]
        step(model, optimizer, 3)
        state = statedict.state_dict(optimizer, model=model)
        other = trained(kind, next(sharded_models())[1])
        other[0].load_state_dict(model.state_dict())
        statedict.load_state_dict(other[1], state, model=other[0])
        before = contents(model, optimizer)
        assert same(before, contents(*other))
        dcp.save(get_optimizer_state_dict(*other), checkpoint_id=folder / f"{kind}-ranks.dcp")
        if dist.get_rank() == 0:
            torch.save(before, folder / f"{kind}-ranks.pt")
        answers[kind] = [group["param_names"] for group in state["param_groups"]]
    return answers


def refused(folder, made):
    """What a rank is told if the state does not fit, or is damaged for one rank only; and whether all is as before."""
    _, plain, paths = made["adamw"]
    _, model = next(sharded_models())
    optimizer = trained("adamw", model)[1]
    step(model, optimizer, 3)
    before = copy.deepcopy(contents(model, optimizer))
    objects = [id(value) for state in optimizer.state.values() for value in state.values()]
    wide = copy.deepcopy(plain.state_dict())
    wide["state"][0]["exp_avg"] = torch.zeros(3, 3)
    absent = folder / "absent.pt" if dist.get_rank() == 1 else paths[0]
    damaged = folder / f"damaged-{dist.get_rank()}.pt"
    raw = bytearray(paths[0].read_bytes())
    if dist.get_rank() == 1:
        stored = plain.state_dict()["state"][0]["exp_avg"].numpy().tobytes()
        at = raw.find(stored)
        raw[at : at + len(stored)] = bytes(len(stored))
    damaged.write_bytes(raw)
    large = copy.deepcopy(plain.state_dict())
    large["state"][0]["exp_avg"][0, 0] = 1e6  # an element of rank 0
    told = []
    for source in (wide, absent, damaged, "hook", large):
        handle = None
        if source == "hook":
            source = paths[0]
            if dist.get_rank() == 1:
                handle = optimizer.register_load_state_dict_post_hook(lambda optimizer: 1 / 0)
        try:
            statedict.load_state_dict(optimizer, source, model=model, dtype="float16" if source is large else None)
        except (StateDictError, OSError, ZeroDivisionError) as error:
            told.append(f"{type(error).__name__}: {error}")
        if handle:
            handle.remove()
    unchanged = objects == [id(value) for state in optimizer.state.values() for value in state.values()]
    return {"told": told, "same": unchanged and same(before, contents(model, optimizer))}


def parts(folder, made):
    """A plain optimizer gets replicated state, and does not get part of a tensor as if it were the whole."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    told = []
    for placement in (Replicate(), Shard(0)):
        sharded = torch.nn.Parameter(distribute_tensor(torch.ones(8, 3), mesh, [placement]))
        optimizer = torch.optim.AdamW([sharded], lr=0.1)
        sharded.grad = torch.full_like(sharded, 2.0)
        optimizer.step()
        plain = torch.nn.Parameter(torch.zeros(8, 3))
        other = torch.optim.AdamW([plain], lr=0.1)
        try:
            statedict.load_state_dict(other, statedict.state_dict(optimizer))
            told.append(same(leaves(other.state[plain]), leaves(optimizer.state[sharded])))
        except LoadError as error:
            told.append(str(error))
    return told


def counted(folder, made):
    """The bytes that this rank reads of the state of row shards, and the bytes that it keeps."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(torch.nn.Linear(64, 2000 + number) for number in range(3)))
    state = {n: {"step": torch.tensor(3.0), "exp_avg": torch.randn(p.shape)} for n, p in enumerate(layers.parameters())}
    for each in state.values():
        each["exp_avg_sq"] = each["exp_avg"].square()
    path = folder / f"large-{dist.get_rank()}.pt"
    model = fully_shard(layers, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    torch.save({**optimizer.state_dict(), "state": state}, path)
    file = Counting(statedict.files.open(str(path)))
    with statedict.open(file) as checkpoint:
        file.count = 0
        statedict.load_state_dict(optimizer, checkpoint, model=model, verify=False)
    found = list(optimizer.state.values())
    assert all(same(leaves(one), state[number]) for number, one in enumerate(found))
    kept = [value.to_local() if isinstance(value, DTensor) else value for one in found for value in one.values()]
    return [file.count, sum(value.nbytes for value in kept)]


def tied(folder, made):
    """One parameter under two names has one state, whichever of its names the file has."""
    plain = Network()
    plain.other = torch.nn.Linear(8, 16)
    plain.other.weight = plain.up.weight
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.1)
    step(plain, optimizer, 1)
    saved = copy.deepcopy(statedict.state_dict(optimizer, model=plain))
    assert saved["param_groups"][0]["param_names"][0] == "up.weight"
    saved["param_groups"][0]["param_names"][0] = "other.weight"
    model = Network()
    model.other = torch.nn.Linear(8, 16)
    model.other.weight = model.up.weight
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    other = torch.optim.AdamW(model.parameters(), lr=0.1)
    report = statedict.load_state_dict(other, saved, model=model)
    return report.ok and same(contents(model, other)["state"], contents(plain, optimizer)["state"])


def cast(folder, made):
    """State is cast to the dtype that is asked for, or to the parameter's, and reported; step counts are not."""
    plain_model, plain, paths = made["adamw"]
    _, model = next(sharded_models())
    optimizer = trained("adamw", model)[1]
    report = statedict.load_state_dict(optimizer, paths[0], model=model, dtype="bfloat16")
    state = leaves(optimizer.state[model.up.weight])
    expected = leaves(plain.state[plain_model.up.weight])
    assert torch.equal(state["exp_avg"], expected["exp_avg"].bfloat16())
    return [str(state["step"].dtype), len(report.cast)]


def by_rank(function):
    """The function, with the answers of all ranks as its answer."""

    def act(folder, made):
        answers = [None] * dist.get_world_size()
        dist.all_gather_object(answers, function(folder, made))
        return answers

    return act


if __name__ == "__main__":
    folder, count, *names = sys.argv[1:]
    main(Path(folder), int(count), *names, known={name: by_rank(globals()[name]) for name in names}, files=files)
