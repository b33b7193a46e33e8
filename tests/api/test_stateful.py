"""Optimizers, schedulers and whatever else has a state: through the same verbs, from memory and from files."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

import statedict
from statedict.errors import NotAStateError, RootError


def trained(steps=3, kind=torch.optim.AdamW, seed=0, **options):
    """A model, its optimizer and a schedule, some steps on."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = kind(model.parameters(), lr=0.1, **options)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    for _ in range(steps):
        step(model, optimizer)
        schedule.step()
    return model, optimizer, schedule


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()


def flat(tree):
    """The tree with tensors as lists, to be compared."""
    if isinstance(tree, torch.Tensor):
        return str(tree.dtype), tree.tolist()
    if isinstance(tree, Mapping):
        return {key: flat(value) for key, value in tree.items()}
    return [flat(value) for value in tree] if isinstance(tree, (list, tuple)) else tree


@pytest.fixture
def run(tmp_path):
    """A training checkpoint as people write it, and what it was made of."""
    model, optimizer, schedule = trained()
    path = tmp_path / "run.pt"
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "epoch": 3,
    }
    torch.save(saved, path)
    return path, model, optimizer, schedule


@pytest.mark.parametrize("root", ["auto", "optimizer"])
def test_training_goes_on_from_a_checkpoint(run, root):
    """Model, optimizer and scheduler of one file: the next steps are those that the first run would have made."""
    path, model, optimizer, schedule = run
    other, its_optimizer, its_schedule = trained(steps=1, seed=1)
    assert statedict.load_state_dict(other, path).ok
    assert statedict.load_state_dict(its_optimizer, path, root=root).ok
    assert statedict.load_state_dict(its_schedule, path, root="scheduler").ok
    for _ in range(3):
        step(model, optimizer)
        schedule.step()
        step(other, its_optimizer)
        its_schedule.step()
    assert flat(other.state_dict()) == flat(model.state_dict())
    assert flat(its_optimizer.state_dict()) == flat(optimizer.state_dict())
    assert its_schedule.get_last_lr() == schedule.get_last_lr()


@pytest.mark.parametrize("kind", ["memory", "nested", "object", "checkpoint", "file"])
def test_every_source_of_an_optimizers_state(run, kind):
    """A state, a checkpoint's dict, another optimizer, an open Checkpoint, a path."""
    path, _, optimizer, _ = run
    _, other, _ = trained(steps=1, seed=1)
    with statedict.open(path) as checkpoint:
        sources = {
            "memory": optimizer.state_dict(),
            "nested": {"optimizer": optimizer.state_dict(), "epoch": 1},
            "object": optimizer,
            "checkpoint": checkpoint,
            "file": path,
        }
        statedict.load_state_dict(other, sources[kind])
    assert flat(other.state_dict()) == flat(optimizer.state_dict())


def test_what_is_saved_here_loads_in_torch(tmp_path):
    """`save(optimizer)`, and a checkpoint made of `statedict.state_dict`, by torch's own loader, weights only."""
    model, optimizer, schedule = trained()
    path = tmp_path / "optimizer.pt"
    statedict.save(optimizer, path)
    _, other, its_schedule = trained(steps=1)
    other.load_state_dict(torch.load(path, weights_only=True))
    assert flat(other.state_dict()["state"]) == flat(optimizer.state_dict()["state"])
    parts = {"model": model, "optimizer": optimizer, "scheduler": schedule}
    statedict.save({name: statedict.state_dict(part) for name, part in parts.items()} | {"epoch": 3}, path)
    loaded = torch.load(path, weights_only=True)
    assert flat(loaded["model"]) == flat(model.state_dict())
    assert loaded["model"]._metadata == model.state_dict()._metadata
    its_schedule.load_state_dict(loaded["scheduler"])
    assert its_schedule.state_dict() == schedule.state_dict()


def test_a_dry_run_changes_no_optimizer(run):
    """The report says that it fits, and nothing was loaded."""
    path, *_ = run
    _, other, its_schedule = trained(steps=1, seed=1)
    before, schedule_before = flat(other.state_dict()), its_schedule.state_dict().copy()
    assert statedict.load_state_dict(other, path, dry_run=True).ok
    assert flat(other.state_dict()) == before
    assert statedict.load_state_dict(its_schedule, path, root="scheduler", dry_run=True).ok
    assert its_schedule.state_dict() == schedule_before


def test_a_dtype_for_an_optimizers_state(run):
    """`dtype` casts moments, and not step counts."""
    path, *_ = run
    _, other, _ = trained(steps=1, seed=1)
    statedict.load_state_dict(other, path, dtype=torch.float64)
    entry = next(iter(other.state.values()))
    assert entry["exp_avg"].dtype == torch.float64
    assert entry["step"].dtype == torch.float32


class Sampler:
    """Anything with the two methods: its state holds values, a tensor and an array."""

    def __init__(self, position=0):
        self.position, self.tensor, self.array = position, torch.full((2,), float(position)), np.full(2, position)

    def state_dict(self):
        return {"position": self.position, "tensor": self.tensor, "array": self.array}

    def load_state_dict(self, state):
        self.position = state["position"]
        self.tensor = state["tensor"]
        self.array = state["array"]


@pytest.mark.parametrize("kind", ["memory", "file", "root", "object"])
def test_any_object_with_a_state(tmp_path, kind):
    """An object gets tensors and arrays of its own, from a file or memory."""
    sampler, other = Sampler(7), Sampler()
    statedict.save(sampler, tmp_path / "sampler.pt")
    statedict.save({"sampler": sampler.state_dict(), "epoch": 1}, tmp_path / "run.pt")
    source, options = {
        "memory": (sampler.state_dict(), {}),
        "file": (tmp_path / "sampler.pt", {}),
        "root": (tmp_path / "run.pt", {"root": "sampler"}),
        "object": (sampler, {}),
    }[kind]
    statedict.load_state_dict(other, source, **options)
    assert (other.position, other.tensor.tolist()) == (7, [7.0, 7.0])
    assert type(other.array) is np.ndarray
    assert other.array.tolist() == [7, 7]
    assert other.tensor is not sampler.tensor
    other.tensor.zero_()
    assert sampler.tensor.any()


def test_a_failing_object_is_put_back():
    """If an object's loader raises, the error is passed on, and the object is as it was."""
    sampler = Sampler(7)
    with pytest.raises(KeyError, match="tensor"):
        statedict.load_state_dict(sampler, {"position": 1})
    assert sampler.position == 7


def test_a_snapshot_of_each(run):
    """Snapshots of a module, an optimizer, a scheduler and an object do not change; `out` reuses their memory."""
    _, model, optimizer, schedule = run
    for part in (model, optimizer, schedule, Sampler(3)):
        copied = statedict.snapshot(part)
        before = flat(copied)
        if part is optimizer or part is model:
            step(model, optimizer)
            assert flat(statedict.snapshot(part)) != before
        assert flat(copied) == before
    first = statedict.snapshot(model)
    memory = first["0.weight"].data_ptr()
    assert statedict.snapshot(model, out=first)["0.weight"].data_ptr() == memory
    tree = statedict.snapshot({"model": statedict.state_dict(model), "list": [model[0].weight]})
    assert tree["model"]["0.weight"].data_ptr() == tree["list"][0].data_ptr() != model[0].weight.data_ptr()


def test_roots_of_nested_states(run):
    """A root that is not there names those that can be loaded, and one that cannot be told is asked for."""
    path, _, optimizer, schedule = run
    with pytest.raises(
        RootError,
        match=r"nothing at 'optim'; did you mean 'optimizer'\? Available: 'optimizer'; choose one with root=$",
    ):
        statedict.load_state_dict(optimizer, path, root="optim")
    with pytest.raises(RootError, match=r"nothing at 'x'\. Available: 'scheduler'; choose one with root=$"):
        statedict.load_state_dict(schedule, path, root="x")
    both = {"one": optimizer.state_dict(), "two": optimizer.state_dict()}
    with pytest.raises(RootError, match=r"several parts of the source fit.*'one', 'two'"):
        statedict.load_state_dict(optimizer, both)
    with pytest.raises(NotAStateError, match="an int has no state"):
        statedict.state_dict(3)


class Counter:
    """An object of the user's, with a state of its own."""

    def __init__(self, **values):
        self.values = values

    def state_dict(self):
        return dict(self.values)

    def load_state_dict(self, state):
        self.values = dict(state)


def test_the_state_of_an_object_is_found_by_its_keys(run):
    """Without a root, an object gets the part that has half of its keys or more; the whole if no part does."""
    path, _, _, schedule = run
    other = torch.optim.lr_scheduler.StepLR(torch.optim.AdamW([torch.zeros(1, requires_grad=True)]), step_size=9)
    statedict.load_state_dict(other, path)
    assert (other.step_size, other.last_epoch) == (2, schedule.last_epoch)
    source = {"a": {"n": 1, "old": 2}, "b": {"m": 3}, "list": [{"k": 4}]}
    for names, found in (("n", source["a"]), ("nm", source["a"]), ("k", {"k": 4}), ("abc", source), ("x", source)):
        counter = Counter(**dict.fromkeys(names, 0))
        if names == "nm":
            with pytest.raises(RootError, match=r"several parts of the source fit. Available: 'a', 'b'"):
                statedict.load_state_dict(counter, source)
            continue
        statedict.load_state_dict(counter, source)
        assert counter.values == found
    empty = Counter()
    statedict.load_state_dict(empty, source)
    assert empty.values == source


def test_a_file_of_something_else_has_no_state_for_a_scheduler(tmp_path):
    """A file of a model is not tried as the state of another object: the error says that there is none."""
    model, _, schedule = trained()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    before = flat(schedule.state_dict())
    for strict in (True, False):
        with pytest.raises(RootError, match="the source contains no state of this kind of object"):
            statedict.load_state_dict(schedule, tmp_path / "model.pt", strict=strict)
    assert flat(schedule.state_dict()) == before
