"""Optimizers in directories of torch.distributed.checkpoint, in every form that PyTorch gives them; torch is the oracle."""

from __future__ import annotations

import warnings

import pytest

import statedict

torch = pytest.importorskip("torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
state_dict = pytest.importorskip("torch.distributed.checkpoint.state_dict")


def built(seed, rate=0.1):
    """A model and its trained optimizer, with two groups."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    parameters = dict(model.named_parameters())
    groups = [
        {"params": [p for name, p in parameters.items() if name.endswith(kind)], "lr": rate * n, "weight_decay": n / 10}
        for n, kind in enumerate(("weight", "bias"), 1)
    ]
    optimizer = torch.optim.AdamW(groups)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def named(model, optimizer):
    return state_dict.get_optimizer_state_dict(model, optimizer)


def flat(model, optimizer):
    options = state_dict.StateDictOptions(flatten_optimizer_state_dict=True)
    return state_dict.get_optimizer_state_dict(model, optimizer, options=options)


def titan(model, optimizer):
    """What torchtitan saves: the model's tensors beside all else."""
    others = {
        "train_state": {"step": torch.tensor(3)},
        "lr_scheduler": {"last_epoch": 3},
        "dataloader": {"rank_0": b"x"},
    }
    return {**model.state_dict(), "optimizer": flat(model, optimizer), **others}


FORMS = {
    "numbers": lambda m, o: {"model": m.state_dict(), "optimizer": o.state_dict()},
    "names": lambda m, o: {"model": m.state_dict(), "optim": named(m, o)},
    "flat": lambda m, o: {"model": m.state_dict(), "optim": flat(m, o)},
    "torchtitan": titan,
    "dotted": lambda m, o: {
        **{f"model.{name}": value for name, value in m.state_dict().items()},
        **{f"optimizer.{name}": value for name, value in flat(m, o).items()},
    },
}


def saved(folder, tree, *, nested=True):
    with warnings.catch_warnings(action="ignore"):  # of a process group that is not there
        planner = dcp.DefaultSavePlanner(flatten_state_dict=nested)
        dcp.save(tree, checkpoint_id=str(folder), planner=planner)
    return folder


def assert_loads(folder, model, optimizer):
    """Loading into another model and optimizer gives the state of these."""
    other, target = built(9)
    statedict.load_state_dict(other, folder)
    statedict.load_state_dict(target, folder, model=other)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    expected, actual = optimizer.state_dict(), target.state_dict()
    for key, entry in expected["state"].items():
        for name, value in entry.items():
            assert torch.equal(actual["state"][key][name], value)
    for ours, theirs in zip(actual["param_groups"], expected["param_groups"]):
        assert float(ours["lr"]) == float(theirs["lr"])
        assert ours["weight_decay"] == theirs["weight_decay"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_an_optimizer_loads(tmp_path, form):
    """A model and its optimizer load from a directory, in whatever form PyTorch's functions gave the optimizer."""
    model, optimizer = built(0)
    assert_loads(saved(tmp_path / "saved", form(model, optimizer)), model, optimizer)
    assert_loads(saved(tmp_path / "as-it-is", form(model, optimizer), nested=False), model, optimizer)


def test_a_learning_rate_that_is_a_tensor_loads(tmp_path):
    """Flat options have a tensor for each parameter; equal ones are those of one group."""
    model, optimizer = built(0, torch.tensor(0.5))
    folder = saved(tmp_path / "saved", FORMS["flat"](model, optimizer))
    assert_loads(folder, model, optimizer)


def test_an_optimizer_alone_is_one(tmp_path):
    """A flat optimizer state that is the whole directory has its usual form."""
    model, optimizer = built(0)
    with statedict.open(saved(tmp_path / "saved", flat(model, optimizer))) as checkpoint:
        assert list(checkpoint.object) == ["state", "param_groups"]
        groups = checkpoint.object["param_groups"]
    assert [group["params"] for group in groups] == [["0.weight", "1.weight"], ["0.bias", "1.bias"]]


def test_an_optimizer_without_state_leaves_the_model_its_root(tmp_path):
    """Before its first step an optimizer has options only; the model beside it is a root all the same."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with statedict.open(saved(tmp_path / "saved", titan(model, optimizer))) as checkpoint:
        assert list(checkpoint.object["model"]) == ["weight", "bias"]
        assert checkpoint.object["optimizer"]["state"] == {}


def test_names_that_only_look_flat_stay(tmp_path):
    """Tensors whose names begin with `state.` are not an optimizer without any `param_groups.`."""
    with statedict.open(saved(tmp_path / "saved", {"state.a.weight": torch.ones(2)})) as checkpoint:
        assert list(checkpoint.object) == ["state.a.weight"]
